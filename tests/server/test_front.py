"""The front of the management API on a real TorchServe: as the host documents it, and nothing is lost."""

import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from real_server import Server, answers, free_ports, wait_until

from genserve.operate.api import ManagementError, local_server
from genserve.operate.scaling import scale

pytestmark = pytest.mark.server
SMALL: dict[str, Any] = {"steps": 2, "seed": 1}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, small_archive: Path) -> Iterator[Server]:
    """Yield a server of one small model."""
    home = tmp_path_factory.mktemp("front")
    with Server(free_ports(5), home, small_archive.parent).running() as server:
        yield server


def picture(server: Server, name: str = "small", seconds: float = 5, **fields: int) -> httpx.Response:
    with server.client() as client:
        return client.post(f"/predictions/{name}", json=SMALL | fields, timeout=seconds)


def test_a_customized_description_is_answered_and_stops_nobody(small: Server) -> None:
    before = picture(small).content
    for path in ("/models/small", "/models/small/1.0"):
        for _ in range(3):
            answer = httpx.get(f"{small.management}{path}?customized=true", timeout=10)
            (version,) = answer.json()
            assert version["modelName"] == "small"
            assert version["workers"][0]["status"] == "READY"
            assert version["customizedMetadata"]["mode"] == "continuous"
            began = time.monotonic()
            assert picture(small, seconds=2).content == before
            assert time.monotonic() - began < 2
    assert "customizedMetadata" not in httpx.get(f"{small.management}/models/small").json()[0]
    assert httpx.get(f"{small.management}/models/none?customized=true").status_code == 404
    assert small.health().returncode == 0


def test_registration_waits_for_the_workers_and_holds_up_no_one(small: Server) -> None:
    times: list[float] = []
    over = threading.Event()

    def ask() -> None:
        with small.client() as client:
            while not over.is_set():
                began = time.monotonic()
                assert client.post("/predictions/small", json=SMALL).status_code == 200
                times.append(time.monotonic() - began)

    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask) for _ in range(8)]
        began = time.monotonic()
        answer = httpx.post(
            f"{small.management}/models",
            params={"url": "small.mar", "model_name": "late", "initial_workers": 1},
            timeout=120,
        )
        loading = time.monotonic() - began
        over.set()
        for future in asking:
            future.result()
    assert (answer.status_code, answer.json()) == (
        200,
        {"status": 'Model "late" Version: 1.0 registered with 1 initial workers'},
    )
    assert picture(small, "late").status_code == 200
    assert max(times) < max(2.0, loading / 2)  # the bare host would keep every fourth waiting
    assert httpx.delete(f"{small.management}/models/late", timeout=60).status_code == 200
    assert picture(small, "late").status_code == 404


def test_a_registration_that_fails_is_an_error_and_leaves_nothing(small: Server) -> None:
    answer = httpx.post(f"{small.management}/models", params={"url": "none.mar"}, timeout=30)
    assert (answer.status_code, answer.json()["code"]) == (404, 404)
    outside = ("/etc", "jar:file:/etc/x.jar", "jar:http://127.0.0.1/x")
    for url in outside:
        answer = httpx.post(f"{small.management}/models", params={"url": url}, timeout=30)
        assert (answer.status_code, "in the model store" in answer.json()["message"]) == (400, True)
        answer = httpx.post(f"{small.management}/models", json={"url": url}, timeout=30)
        assert answer.status_code == 400
    assert [m["modelName"] for m in httpx.get(f"{small.management}/models").json()["models"]] == ["small"]


def test_a_bare_scale_down_loses_nothing(small: Server) -> None:
    address = f"{small.management}/models/small"
    grown = httpx.put(address, params={"min_worker": 3, "synchronous": "true"}, timeout=120)
    assert (grown.status_code, grown.json()["status"]) == (200, "Workers scaled to 3 for model: small")
    statuses: list[int] = []
    over = threading.Event()

    def ask(seed: int) -> None:
        with small.client() as client:
            while not over.is_set():
                fields = {"steps": 40, "num_samples": 4, "seed": seed}
                statuses.append(client.post("/predictions/small", json=fields).status_code)

    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask, seed) for seed in range(8)]
        time.sleep(0.5)
        begun = httpx.put(address, params={"min_worker": 1}, timeout=10)
        assert (begun.status_code, begun.json()) == (202, {"status": "Processing worker updates..."})
        wait_until(lambda: len(httpx.get(address).json()[0]["workers"]), 1, 60)
        time.sleep(0.5)
        over.set()
        for future in asking:
            future.result()
    assert set(statuses) == {200}


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://example.com"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "example.com"},
        {"Host": "127.0.0.1.example.com:8081"},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_a_page_in_a_browser_changes_nothing(small: Server, method: str, headers: dict[str, str]) -> None:
    path = "/models?url=small.mar&model_name=evil" if method == "POST" else "/models/small?min_worker=0"
    answer = httpx.request(method, f"{small.management}{path}", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, 403)
    assert picture(small).status_code == 200


def test_what_is_no_request_costs_no_one_anything(small: Server) -> None:
    port = small.port + 1
    with socket.create_connection(("127.0.0.1", port)) as slow:
        slow.sendall(b"GET /models HTTP/1.1\r\n")  # and no more
        assert httpx.get(f"{small.management}/models").status_code == 200
    for text in (b"\0\xff\r\n\r\n", b"POST /models HTTP/1.1\r\nContent-Length: -1\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", port)) as strange:
            strange.sendall(text)
            assert re.search(rb"4\d\d", strange.recv(1000))
    assert httpx.post(f"{small.management}/models", content=b"x" * 70_000).status_code == 413
    bad = httpx.post(f"{small.management}/models", content=b"[", headers={"Content-Type": "application/json"})
    assert bad.status_code == 400
    assert httpx.post(f"{small.management}/workflows?url=x.war").status_code == 404
    assert json.loads((small.home / "server.json").read_text())["front"]


def test_the_host_itself_is_behind_a_socket_that_is_its_owners(small: Server) -> None:
    path = Path(json.loads((small.home / "server.json").read_text())["management"])
    assert path.is_socket()
    assert path.parent == small.home / "tmp"


@pytest.mark.parametrize(
    ("method", "path", "status", "names"),
    [
        ("PUT", "/models/small?min_worker=99999", 400, "min_worker"),  # the bare host starts them, and ends
        ("PUT", "/models/small?min_worker=-1", 400, "min_worker"),
        ("PUT", "/models/small?min_worker=x", 400, "min_worker"),
        ("PUT", "/models/small?min_worker=2&max_worker=1", 400, "max_worker"),
        ("POST", "/models?url=small.mar&model_name=b&initial_workers=99999", 400, "initial_workers"),
        ("POST", "/models?url=small.mar&model_name=a/b", 400, "model_name"),  # no path would reach it
        ("PUT", "/models/small/1.0/more?min_worker=0", 404, "/models/small/1.0/more"),
        ("DELETE", "/models/small/1.0/more", 404, "/models/small/1.0/more"),
        ("GET", "/models/small/1.0/more?customized=true", 404, "/models/small/1.0/more"),
        ("GET", "/models/small/1.0/set-default?customized=true", 404, "/models/small/1.0/set-default"),
    ],
)
def test_what_would_harm_is_refused_by_name(
    small: Server, method: str, path: str, status: int, names: str
) -> None:
    answer = httpx.request(method, small.management + path, timeout=30)
    assert (answer.status_code, names in answer.json()["message"]) == (status, True), answer.text
    assert [m["modelName"] for m in httpx.get(f"{small.management}/models").json()["models"]] == ["small"]
    assert len(httpx.get(f"{small.management}/models/small").json()[0]["workers"]) == 1


def test_the_number_of_workers_stays_where_it_is_allowed_to(small: Server) -> None:
    address = f"{small.management}/models/small"

    def workers(**parameters: object) -> int:
        answer = httpx.put(address, params={"synchronous": "true", **parameters}, timeout=120)  # type: ignore[dict-item]
        assert answer.status_code == 200, answer.text
        return len(httpx.get(address).json()[0]["workers"])

    assert workers(min_worker=2) == 2
    assert workers(min_worker=1, max_worker=4) == 2
    assert workers() == 1
    assert workers(min_worker=0, max_worker=2) == 0
    assert workers(min_worker=1, max_worker=2) == 1
    version = httpx.get(address).json()[0]
    assert (version["minWorkers"], version["maxWorkers"]) == (1, 2)


def test_a_command_that_cannot_be_done_now_is_refused_and_not_forgotten(small: Server) -> None:
    address = f"{small.management}/models/small"
    assert httpx.put(address, params={"min_worker": 2, "synchronous": "true"}, timeout=120).status_code == 200
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(picture, small, seconds=60, steps=900, num_samples=8)
        time.sleep(0.5)
        assert httpx.put(address, params={"min_worker": 0}, timeout=10).status_code == 202
        for method, parameters in (("PUT", {"min_worker": 2}), ("PUT", {"min_worker": 1}), ("DELETE", {})):
            answer = httpx.request(method, address, params=parameters, timeout=10)
            assert (answer.status_code, "being changed" in answer.text) == (409, True), answer.text
        with pytest.raises(ManagementError, match="being changed"):  # as `genserve models` does it
            scale(local_server(small.port, small.home), "small", 2)
        assert long.result().status_code == 200
    wait_until(lambda: len(httpx.get(address).json()[0]["workers"]), 0, 60)

    def restored() -> int:
        return httpx.put(address, params={"min_worker": 1, "synchronous": "true"}, timeout=120).status_code

    wait_until(restored, 200, 60)
    assert picture(small).status_code == 200


def test_a_front_that_ended_is_named_and_started_again(small: Server) -> None:
    os.kill(json.loads((small.home / "server.json").read_text())["front"], signal.SIGKILL)
    wait_until(lambda: "management" in small.serve("status").stdout, True)
    assert picture(small).status_code == 200
    assert "started again" in small.serve("start").stdout
    wait_until(lambda: answers(f"{small.management}/models"), True)
    assert "management" not in small.serve("status").stdout
