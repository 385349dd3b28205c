"""What goes through the gateway is what the server answers, to the byte; who leaves frees a place."""

import contextlib
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from real_gateway import Gateway
from real_server import ROOT, Server, wait_until

from genserve.operate.api import local_server
from genserve.operate.versions import version_of

pytestmark = pytest.mark.server
SEVEN = (ROOT / "docs" / "images" / "seven.png").read_bytes()
SMALL: dict[str, Any] = {"num_samples": 2, "steps": 3, "seed": 1}
LONG: dict[str, Any] = {"num_samples": 16, "steps": 1000, "seed": 1}
OWN = ("content-type", "x-seed", "x-nfe", "x-work", "x-steps", "x-sampler", "x-energy", "x-model-version")
FORM = "application/json"
Asking = Callable[[httpx.Client], httpx.Response]


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    with gateway.client() as client:
        yield client


def alike(answer: httpx.Response) -> tuple[Any, ...]:
    """Return what must be the same in two answers: all but the times in the last line of a stream."""
    content = re.sub(rb'"server_timing": "[^"]*"', b"", answer.content)
    return answer.status_code, [answer.headers.get(name) for name in OWN], content


@pytest.mark.parametrize(
    "ask",
    [
        lambda c: c.post("/predictions/diffusion", json=SMALL),
        lambda c: c.post("/predictions/diffusion/1.0", json=SMALL | {"format": "json"}),
        lambda c: c.post("/predictions/diffusion", json=SMALL | {"format": "gif"}),
        lambda c: c.post("/predictions/diffusion", data={name: str(v) for name, v in SMALL.items()}),
        lambda c: c.post("/predictions/energy", files={"images": SEVEN}, data={"task": "score"}),
        lambda c: c.post("/explanations/energy", files={"images": SEVEN}),
        lambda c: c.post("/predictions/energy", content=SEVEN, headers={"Content-Type": "image/png"}),
        lambda c: c.post("/predictions/diffusion", json=SMALL | {"stream": "jsonl", "frames": 2}),
        lambda c: c.post("/predictions/diffusion", json={"instances": [SMALL, {"steps": 0}]}),
        lambda c: c.post("/predictions/diffusion", json={"steps": 400, "num_samples": 4, "seed": 1}),
        lambda c: c.post("/predictions/diffusion", json={"num_samples": 65}),
        lambda c: c.post("/predictions/diffusion", content=b"{", headers={"Content-Type": FORM}),
        lambda c: c.post("/predictions/diffusion", content=b"x", headers={"Content-Encoding": "gzip"}),
    ],
    ids=["png", "json", "gif", "form", "multipart", "explanation", "picture", "stream", "kserve", "late",
         "field", "no json", "compressed"],
)  # fmt: skip
def test_an_answer_is_the_server_s_to_the_byte(server: Server, client: httpx.Client, ask: Asking) -> None:
    with server.client() as plain:
        direct = (
            plain.get("/energy/predict?task=score") if ask(client).request.method == "GET" else ask(plain)
        )
    through = ask(client)
    assert alike(through) == alike(direct)
    assert ("Server-Timing" in through.headers) == ("Server-Timing" in direct.headers)


@pytest.mark.parametrize("path", ["/predictions/diffusion", "/predictions/diffusion/1.0"])
def test_a_query_string_is_a_form(client: httpx.Client, path: str) -> None:
    form = client.post(path, data={name: str(value) for name, value in SMALL.items()})
    assert client.get(path, params=SMALL).content == form.content
    assert client.post(path, params=SMALL).content == form.content
    both = client.post(path, params=SMALL, json=SMALL)
    assert (both.status_code, "field" in both.json()) == (400, True)


def test_a_query_string_of_explanations_explains(client: httpx.Client) -> None:
    answer = client.post("/explanations/energy?format=json", files={"images": SEVEN})
    assert answer.json()["settings"]["task"] == "explain"
    refused = client.post("/explanations/energy?task=score", files={"images": SEVEN})
    assert (refused.status_code, refused.json()["field"]) == (400, "task")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/predictions/nothing", 404), ("POST", "/predictions/diffusion/9.9", 404),
        ("POST", "/predictions/diffusion/1.0/more", 404), ("PUT", "/predictions/diffusion", 405),
        ("DELETE", "/predictions/diffusion", 405), ("HEAD", "/predictions/diffusion", 405),
        ("OPTIONS", "/predictions/diffusion", 405), ("GET", "/ping", 404), ("POST", "/models", 405),
        ("DELETE", "/models/diffusion", 405), ("GET", "/api-description", 404), ("POST", "/invocations", 404),
        ("GET", "/diffusion/predict", 404), ("POST", "/v1/models/diffusion:predict", 404),
        ("POST", "/predictions/..%2fmodels", 404), ("POST", "/predictions/%2e%2e/models", 404),
        ("POST", "/predictions/diffusion?seed=%zz", 400),
        ("POST", f"/predictions/energy?a={'x' * 5000}", 400),
    ],
)  # fmt: skip
def test_nothing_else_of_the_host_is_reachable_and_errors_have_one_form(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status, answer.text
    assert method == "HEAD" or {"error", "message"} <= answer.json().keys()


@pytest.mark.parametrize("body", [b"seed=%zz", b"=3", SEVEN])
def test_what_the_host_takes_for_its_own_fault_is_the_client_s(client: httpx.Client, body: bytes) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = client.post("/predictions/diffusion", content=body, headers=form)
    assert (answer.status_code, "the form cannot be read" in answer.json()["error"]) == (400, True)
    nameless = client.post("/predictions/diffusion", files={"": b"3"})
    assert (nameless.status_code, "error" in nameless.json()) == (400, True)


def test_headers_that_the_host_believes_do_not_come_to_it(client: httpx.Client) -> None:
    believed = {"explain": "True", "describe": "True", "X-Hang-Up": "no", "Authorization": "x"}
    answer = client.get("/predictions/diffusion", params=SMALL, headers=believed)
    assert answer.headers["content-type"] == "image/png"


def test_models_and_health_tell_what_can_answer(client: httpx.Client) -> None:
    listed = {model["name"]: model for model in client.get("/models").json()["models"]}
    assert listed["diffusion"]["versions"][0]["workers"][0]["status"] == "READY"
    assert listed["diffusion"]["able"] is True
    described = client.get("/models/energy").json()
    assert described["description"]["family"] == "energy"
    assert client.get("/models/nothing").status_code == 404
    health = client.get("/health")
    assert (health.status_code, health.json()["models"]["diffusion"]) == (200, True)


def counted(client: httpx.Client, name: str) -> float:
    """Return the sum of one of the gateway's counts."""
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"genserve_gateway_{name}"))


def in_work(server: Server) -> int | None:
    """Return how many requests the workers of a model have open."""
    return version_of(local_server(server.port, server.home), "diffusion").open


@contextlib.contextmanager
def asking(gateway: Gateway, fields: dict[str, Any]) -> Iterator[socket.socket]:
    """Send a request, and hang up when the block ends."""
    body = json.dumps(fields).encode()
    head = (
        "POST /predictions/diffusion HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=60) as connection:
        connection.sendall(head.encode() + body)
        yield connection


@pytest.mark.parametrize("fields", [LONG, LONG | {"stream": "jsonl"}], ids=["plain", "stream"])
def test_who_hangs_up_frees_a_place_at_once(
    server: Server, gateway: Gateway, client: httpx.Client, fields: dict[str, Any]
) -> None:
    wait_until(lambda: in_work(server), 0)
    before = counted(client, "hang_ups_total")
    with asking(gateway, fields) as connection:
        wait_until(lambda: in_work(server), 1)
        if "stream" in fields:
            connection.recv(1)
    began = time.monotonic()
    wait_until(lambda: in_work(server), 0)
    assert time.monotonic() - began < 10  # a second, on a machine that does nothing else
    wait_until(lambda: counted(client, "hang_ups_total"), before + 1)


def test_many_who_hang_up_leave_nothing_open(gateway: Gateway, client: httpx.Client, server: Server) -> None:
    for _ in range(20):
        with asking(gateway, LONG):
            pass
    wait_until(lambda: in_work(server), 0)
    wait_until(lambda: counted(client, "open"), 1)  # the request for this count
    assert client.post("/predictions/diffusion", json=SMALL).status_code == 200


def test_counts_name_routes_and_not_addresses(client: httpx.Client) -> None:
    client.get("/an/address/of/nothing")
    text = client.get("/metrics").text
    assert 'requests_total{route="/predictions/{model}",status="200"}' in text
    assert 'requests_total{route="none",status="404"}' in text
    assert "nothing" not in text
