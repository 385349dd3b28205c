"""The shipped proxy in front of a real TorchServe: what it lets through, and which clients it cuts."""

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from door import TOKENS, Door, opened
from real_server import ROOT, Server

pytestmark = pytest.mark.server
SMALL = {"num_samples": 1, "steps": 1, "format": "json"}
SEVEN = (ROOT / "docs" / "images" / "seven.png").read_bytes()


@pytest.fixture(scope="module")
def door(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with opened(tmp_path_factory.mktemp("door"), server.port) as door:
        yield door


@pytest.fixture(autouse=True)
def _unhurried() -> Iterator[None]:
    """Leave the rate limit the time to forget the last test."""
    yield
    time.sleep(2.5)


def error(answer: httpx.Response) -> str:
    """Return the text of an error of the door's, which has the server's form."""
    assert answer.headers["content-type"] == "application/json"
    content = answer.json()
    assert list(content) == ["error"]  # no field: the server's own errors have one
    return str(content["error"])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/predictions/diffusion", 200),
        ("GET", "/predictions/diffusion", 200),
        ("POST", "/predictions/diffusion/1.0", 200),
        ("GET", "/diffusion/predict?num_samples=1&steps=1", 200),
        ("POST", "/v1/models/diffusion:predict", 200),
        ("POST", "/v2/models/diffusion/infer", 200),
        ("POST", "/explanations/energy", 400),  # by the model: it wants a picture
        ("POST", "/predictions/nothing", 404),  # by the host: there is no such model
        ("GET", "/ping", 200),
        ("PUT", "/predictions/diffusion", 405),
        ("DELETE", "/predictions/diffusion", 405),
        ("OPTIONS", "/predictions/diffusion", 405),
        ("GET", "/explanations/energy", 405),
        ("GET", "/v1/models/diffusion:predict", 405),
        ("POST", "/ping", 405),
        ("GET", "/models", 404),
        ("POST", "/models?url=x.mar", 404),
        ("GET", "/models/diffusion?customized=true", 404),
        ("PUT", "/models/diffusion", 404),
        ("POST", "/models/diffusion/invoke", 404),
        ("POST", "/models/predict", 404),
        ("POST", "/invocations?model_name=diffusion", 404),
        ("POST", "/workflows", 404),
        ("POST", "/wfpredict/diffusion", 404),
        ("GET", "/metrics", 404),
        ("GET", "/api-description", 404),
        ("OPTIONS", "/", 404),
        ("GET", "/token?type=management", 404),
        ("GET", "/diffusion/predict?customized=true", 403),
        ("POST", "/predictions/diffusion/1.0/more", 404),
        ("POST", "/predictions/../models", 404),
        ("POST", "/models/..%2fpredictions/diffusion", 200),  # it sends on the address that it has judged
        ("POST", "/predictions/%2e%2e/models", 404),
        ("POST", "//models", 404),
        ("POST", "/org.pytorch.serve.grpc.inference.InferenceAPIsService/StreamPredictions", 404),
    ],
)  # fmt: skip
def test_the_door_opens_for_predictions_alone(door: Door, method: str, path: str, status: int) -> None:
    time.sleep(0.05)
    body = SMALL
    if "/v1" in path:
        body = {"instances": [SMALL]}  # type: ignore[dict-item]
    if "/v2" in path:
        body = {"inputs": []}  # type: ignore[dict-item]
    with door.client() as client:
        kind = {"json": body} if method == "POST" and path != "/explanations/energy" else {}
        answer = client.request(method, path, **kind)  # type: ignore[arg-type]
        assert answer.status_code == status, answer.text
        ours = status in (403, 405) or (status == 404 and "nothing" not in path)
        assert not ours or error(answer)


def test_nobody_comes_in_without_a_token(door: Door) -> None:
    with door.client(None) as client:
        for wrong in (None, "", "Bearer", "Bearer x", "alice", TOKENS["alice"], f"Basic {TOKENS['alice']}"):
            header = {} if wrong is None else {"Authorization": wrong}
            answer = client.post("/predictions/diffusion", json=SMALL, headers=header)
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            assert "token" in error(answer)
        assert client.get("/v1/models/diffusion").status_code == 401
        assert client.get("/ping").json() == {"status": "Healthy"}
    with pytest.raises(httpx.ConnectError, match=r"CERTIFICATE_VERIFY_FAILED|certificate verify failed"):
        httpx.get(f"https://localhost:{door.port}/ping")
    assert httpx.get(f"http://localhost:{door.port}/ping").status_code == 400  # no TLS


def test_a_page_of_another_origin_may_not_ask(door: Door) -> None:
    with door.client() as client:
        for origin, status in (
            ("https://elsewhere.example", 403),
            ("null", 403),
            ("http://localhost", 403),
            (f"https://localhost:{door.port}", 200),
        ):
            answer = client.post("/predictions/diffusion", json=SMALL, headers={"Origin": origin})
            assert answer.status_code == status, origin


def test_headers_that_the_host_believes_are_taken_away(server: Server, door: Door) -> None:
    query = {"images": base64.b64encode(SEVEN).decode(), "format": "json"}
    believed = {"explain": "True"}
    with server.client() as client:
        plain = client.get("/energy/predict", params=query, headers=believed)
    assert plain.json()["settings"]["task"] == "explain"
    with door.client() as client:
        assert (
            client.get("/energy/predict", params=query, headers=believed).json()["settings"]["task"]
            == "score"
        )


def test_a_body_above_the_limit_is_413(door: Door) -> None:
    with door.client() as client:
        assert client.post("/predictions/energy", content=b"x" * 262_145).status_code == 413
        chunks = client.post("/predictions/energy", content=(b"x" * 8192 for _ in range(40)))
        assert (chunks.status_code, "262144" in error(chunks)) == (413, True)
        assert client.post("/predictions/energy", content=b"{" + b" " * 262_100 + b"]").status_code == 400


def test_a_client_that_asks_too_often_is_429_and_the_others_are_answered(door: Door) -> None:
    def describe(client: httpx.Client) -> httpx.Response:
        return client.get("/diffusion/predict?task=describe")

    with door.client("mallory") as client, ThreadPoolExecutor(8) as pool:
        answers = [one.result() for one in [pool.submit(describe, client) for _ in range(80)]]
        with door.client() as polite:
            assert describe(polite).status_code == 200
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses.keys() == {200, 429}
    assert statuses[200] >= 20  # the burst
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert (refused.headers["Retry-After"], "10 a second" in error(refused)) == ("2", True)


def test_many_pictures_come_through_the_door_which_slows_their_client_down(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENSERVE_TOKEN", TOKENS["alice"])
    monkeypatch.setenv("SSL_CERT_FILE", str(door.certificate))
    out = tmp_path / "out"
    address, before = f"https://localhost:{door.port}/predictions/diffusion", len(door.log)
    words = ["--server", address, "--num-images", "800", "--steps", "1", "--seed", "3", "--in-flight", "32"]
    command = [sys.executable, str(ROOT / "scripts" / "generate.py"), *words, "--output-dir", str(out)]
    subprocess.run(command, check=True, timeout=120)
    assert len(list(out.glob("*.png"))) == 800
    assert any("/predictions/diffusion" in line and " 429 " in line for line in door.log[before:])


def test_streams_pass_frame_by_frame(door: Door) -> None:
    fields: dict[str, Any] = {
        "steps": 1000,
        "num_samples": 1,
        "sampler": "ddim",
        "stream": "jsonl",
        "frames": 10,
    }
    arrivals: list[tuple[float, int]] = []
    began = time.monotonic()
    with door.client() as client, client.stream("POST", "/predictions/diffusion", json=fields) as answer:
        for line in answer.iter_lines():
            arrivals.append((time.monotonic() - began, json.loads(line)["step"]))
    assert answer.status_code == 200
    assert "X-Accel-Buffering" not in answer.headers
    assert [step for _, step in arrivals][-1] == 1000
    last = arrivals[-1][0]
    moments = [moment for moment, _ in arrivals]
    apart = sum(later - earlier > 0.03 * last for earlier, later in pairwise(moments))
    assert apart >= 7, arrivals  # of ten frames of some hundred bytes, which nginx gathers if it may


def test_slow_clients_are_cut_and_cost_the_server_nothing(server: Server, door: Door) -> None:
    """As many as the door lets in send most of a body and then nothing; a polite client does not notice."""
    head = (
        "POST /predictions/energy HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {TOKENS['mallory']}\r\nContent-Length: 262000\r\n\r\n"
    ).encode()
    statuses: list[bytes] = []
    cut: list[float] = []
    began = time.monotonic()

    def attack() -> None:
        with door.connection() as connection:
            try:
                connection.sendall(head + b" " * 261_000)
                statuses.append(connection.recv(4096)[:12])
            except OSError:  # cut while it sends, or at the end
                statuses.append(b"")
        cut.append(time.monotonic() - began)

    threads = [threading.Thread(target=attack) for _ in range(40)]
    for thread in threads:
        thread.start()
    time.sleep(3)
    assert sum(thread.is_alive() for thread in threads) >= 10  # they hold on
    at_the_server = [
        c
        for c in psutil.net_connections("tcp")
        if c.status == "ESTABLISHED" and c.laddr and c.laddr.port == server.port
    ]
    assert len(at_the_server) < 5
    with door.client() as polite:
        start = time.monotonic()
        assert polite.post("/predictions/diffusion", json=SMALL).status_code == 200
        assert time.monotonic() - start < 2
    for thread in threads:
        thread.join(30)
    assert max(cut) < 20  # client_body_timeout is 10 s
    assert sum(status == b"HTTP/1.1 429" for status in statuses) >= 20  # above 16 at a time of one client
    with door.client("mallory") as client:
        assert client.post("/predictions/diffusion", json=SMALL).status_code == 200


def test_the_cheapest_attack_keeps_no_one_waiting(server: Server, door: Door) -> None:
    """Two hundred lines ask for the largest work and hang up at once: the server computes what it took."""
    line = "GET /attacked/predict?num_samples=16&steps=1000 HTTP/1.1\r\nHost: localhost\r\n"
    ask = f"{line}Authorization: Bearer {TOKENS['mallory']}\r\n\r\n".encode()
    with server.registered("diffusion.mar", "attacked"), door.client() as polite:
        for _ in range(200):
            with contextlib.suppress(OSError), door.connection() as connection:
                connection.sendall(ask)
        try:
            for _ in range(3):
                start = time.monotonic()
                answer = polite.post("/predictions/attacked", json=SMALL)
                assert (answer.status_code, time.monotonic() - start < 2) == (200, True), answer.text
        finally:  # without its worker: it would first end what the attacker has left
            (model,) = httpx.get(f"{server.management}/models/attacked", timeout=20).json()
            os.kill(model["workers"][0]["pid"], signal.SIGKILL)


def test_health_and_readiness_in_the_protocols_are_those_of_the_models(door: Door) -> None:
    with door.client() as client:
        assert client.get("/v2/health/live").json() == {"live": True}
        assert client.get("/v2/health/ready").json() == {"ready": True}
        for path in ("/v1/models/diffusion", "/v2/models/diffusion/ready"):
            assert client.get(path).json() == {"name": "diffusion", "ready": True}
            absent = client.get(path.replace("diffusion", "nothing"))
            assert (absent.status_code, absent.json()) == (503, {"ready": False})


def test_a_server_that_is_gone_is_passed_over_or_said(
    server: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with socket.socket() as held:  # a port on which nothing listens, and nothing will
        held.bind(("127.0.0.1", 0))
        gone = held.getsockname()[1]
        with opened(tmp_path_factory.mktemp("two"), gone, server.port) as two, two.client() as client:
            for _ in range(6):
                assert client.post("/predictions/diffusion", json=SMALL).status_code == 200
        with opened(tmp_path_factory.mktemp("none"), gone) as none, none.client() as client:
            answer = client.post("/predictions/diffusion", json=SMALL)
            assert (answer.status_code, answer.headers["Retry-After"], error(answer)) == (
                503,
                "5",
                "no server answers now",
            )
            assert client.get("/v2/health/ready").status_code == 503
            assert client.get("/v1/models/diffusion").status_code == 503
