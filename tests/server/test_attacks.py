"""Attacks from outside: while one lasts a polite client is served, and after it all is as it was before."""

import contextlib
import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from real_server import Server, answers, wait_until

from genserve.drawing.client import worth_a_retry

pytestmark = pytest.mark.server
URL = "/predictions/small"
POLITE_S = 2.0
POLITE: dict[str, Any] = {"num_samples": 2, "steps": 10, "seed": 1}
N_BODIES, BODY, SENT = 2000, 262_000, 261_000  # connections; bytes promised, and sent by each of them


@pytest.fixture
def alone(fresh: Server) -> Iterator[Server]:
    """Yield a running server of its own: an attack may cost it its life."""
    with fresh.running():
        yield fresh


def assert_all_is_well(server: Server) -> None:
    """Ask each of the server's three ports what a client asks it; each answers in time."""
    polite = [
        ("POST", f"http://127.0.0.1:{server.port}{URL}"),
        ("GET", f"http://127.0.0.1:{server.port}/ping"),
        ("GET", f"{server.management}/models/small"),
        ("GET", f"{server.metrics}/metrics"),
    ]
    for method, address in polite:
        began = time.monotonic()
        answer = httpx.request(method, address, json={"steps": 1} if method == "POST" else None, timeout=10)
        assert (answer.status_code, time.monotonic() - began < POLITE_S) == (200, True), address


def unfinished(server: Server) -> socket.socket:
    """Open a connection that sends all of a body but its end."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    head = (
        f"POST {URL} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {BODY}\r\n\r\n"
    )
    connection.sendall(head.encode() + bytes(SENT))
    return connection


def test_two_thousand_bodies_that_never_end_stop_nobody(alone: Server) -> None:
    java = next(process for process in alone.processes() if process.name() == "java")
    assert_all_is_well(alone)
    before = java.num_fds()
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(16) as pool:
        for connection in pool.map(lambda _: unfinished(alone), range(N_BODIES)):
            stack.enter_context(contextlib.closing(connection))
        for _ in range(3):
            assert_all_is_well(alone)
        assert java.num_fds() > before + 0.95 * N_BODIES, "the attack did not last"
        assert alone.health().returncode == 0
    wait_until(lambda: java.num_fds() <= before + 20, True)
    assert_all_is_well(alone)
    assert "OutOfMemory" not in alone.serve("logs").stdout


def test_more_connections_than_files_lock_newcomers_out_while_they_last_and_no_longer(alone: Server) -> None:
    java = next(process for process in alone.processes() if process.name() == "java")
    before = java.num_fds()
    limit = int(re.findall(r"Max open files +(\d+)", Path(f"/proc/{java.pid}/limits").read_text())[0])
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(16) as pool:
        for connection in pool.map(lambda _: unfinished(alone), range(limit)):
            stack.enter_context(contextlib.closing(connection))
        with pytest.raises(httpx.TimeoutException):
            httpx.get(f"{alone.management}/models/small", timeout=1)
    wait_until(lambda: java.num_fds() <= before + 20, True)
    # the host looks for newcomers a second after it could take none
    wait_until(lambda: answers(f"http://127.0.0.1:{alone.port}/ping"), True)
    assert_all_is_well(alone)


def counter(server: Server, name: str, model: str) -> float:
    """Return a counter of a model; 0 before its worker has told it."""
    text = httpx.get(f"{server.metrics}/metrics").text
    value = re.search(rf'^genserve_{name}_total{{ModelName="{model}",.*?}} (\S+)$', text, re.MULTILINE)
    return 0.0 if value is None else float(value[1])


def patiently(client: httpx.Client, url: str) -> bytes:
    """Return the answer to a polite request; a queue that is full at this moment is tried again."""
    until = time.monotonic() + POLITE_S
    while (answer := client.post(url, json=POLITE)).status_code != 200:
        assert worth_a_retry(answer.status_code, answer.content), answer.text
        assert time.monotonic() < until, answer.text
        time.sleep(0.1)
    assert time.monotonic() < until
    return answer.content


def test_two_hundred_requests_for_the_most_work_keep_no_one_waiting(server: Server) -> None:
    """They cost 90 bytes each, and their clients hang up at once, which the host does not notice."""
    with server.client() as client, server.registered("diffusion.mar", "attacked"):
        url = "/predictions/attacked"
        before = client.post(url, json=POLITE).content
        query = "num_samples=16&steps=1000"
        for _ in range(200):
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.sendall(f"GET /attacked/predict?{query} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        for _ in range(10):
            assert patiently(client, url) == before
        wait_until(lambda: counter(server, "refused", "attacked") > 50, True)
        wait_until(lambda: counter(server, "answered", "attacked") >= 11, True)  # told once a second
        # what no one waits for any more would hold up the end of this model for two minutes
        os.kill(
            httpx.get(f"{server.management}/models/attacked").json()[0]["workers"][0]["pid"], signal.SIGKILL
        )
    with server.client() as client:
        assert client.post("/predictions/diffusion", json=POLITE).content == before


def test_who_cannot_end_in_time_beside_others_is_told_when_to_come_again(server: Server) -> None:
    greedy = {"num_samples": 16, "steps": 1000, "stream": True}
    with contextlib.ExitStack() as stack, server.registered("diffusion.mar", "greedy"):
        client = stack.enter_context(server.client())
        for _ in range(90):
            answer = stack.enter_context(client.stream("POST", "/predictions/greedy", json=greedy))
            if answer.status_code != 200:
                break
        error = json.loads(answer.read())
        assert (answer.status_code, "field" in error) == (503, False)
        assert 1 <= int(answer.headers["Retry-After"]) <= 120
        assert f"ask again in {answer.headers['Retry-After']} s" in error["error"]
        assert client.post("/predictions/greedy", json=POLITE).status_code == 200


def test_streams_that_were_all_left_stop_working_though_no_one_else_asks(server: Server) -> None:
    """The host notices that their clients are gone, drops them, and has no reason to visit the worker."""
    name, n = "left", 6
    greedy = {"num_samples": 16, "steps": 300, "stream": True}
    streams: list[Iterator[bytes]] = []
    with server.registered("diffusion.mar", name), server.client() as client:
        with contextlib.ExitStack() as stack:
            for seed in range(n):
                fields = greedy | {"seed": seed}
                answer = stack.enter_context(client.stream("POST", f"/predictions/{name}", json=fields))
                streams.append(answer.iter_raw())  # which hangs up when it is forgotten
                next(streams[-1])
        wait_until(lambda: counter(server, "cancelled", name), n, 10)
        began = time.monotonic()
        assert client.post(f"/predictions/{name}", json=POLITE).status_code == 200
        assert time.monotonic() - began < POLITE_S
        wait_until(lambda: counter(server, "answered", name), 1)
        assert counter(server, "evaluations", name) < n * 16 * 300 / 2  # told with the answer
