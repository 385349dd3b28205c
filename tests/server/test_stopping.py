"""A stop loses nothing: what is open ends, newcomers get 503, a second signal kills; health says so."""

import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest
from program import background
from real_server import Server, answers, wait_until

pytestmark = pytest.mark.server
URL = "/predictions/small"
LONG: dict[str, Any] = {"num_samples": 8, "steps": 1000, "seed": 1}  # four seconds of a quiet machine
LONGER = {**LONG, "num_samples": 16}


def post(server: Server, fields: dict[str, Any]) -> httpx.Response:
    with server.client() as client:
        return client.post(URL, json=fields)


def n_open(server: Server) -> str:
    return server.serve("status").stdout.rpartition("open: ")[2].strip()


def test_a_stop_ends_what_is_open_and_refuses_the_rest(fresh: Server) -> None:
    assert fresh.serve("start").returncode == 0
    picture = post(fresh, LONG).content
    assert post(fresh, {"steps": 1}).status_code == 200
    with ThreadPoolExecutor() as pool:
        long = [pool.submit(post, fresh, LONG) for _ in range(2)]
        wait_until(lambda: n_open(fresh), "2")
        stop = pool.submit(fresh.serve, "stop")
        wait_until(lambda: '"stopping": true' in (fresh.home / "server.json").read_text(), True)
        wait_until(lambda: post(fresh, {"steps": 1}).status_code, 503)
        refused = post(fresh, {"steps": 1})
        assert int(refused.headers["Retry-After"]) >= 1
        assert "field" not in refused.json()
        assert "stopping: it takes no more requests" in fresh.serve("status").stdout
        ready, live, start = fresh.health(), fresh.health("--live"), fresh.serve("start")
        assert ready.stderr == "not ready: the server is stopping\n"
        assert live.returncode == 0, live.stderr
        assert "is stopping: try again when it is gone" in start.stderr
        assert not long[0].done(), "the machine is too fast for this test"
        answers = [future.result() for future in long]
        assert [(answer.status_code, answer.content == picture) for answer in answers] == [(200, True)] * 2
        done = stop.result()
    assert done.stdout == "stopped\n"
    assert "stopping, open: small 2; at most" in done.stderr
    assert fresh.processes() == []
    assert not (fresh.home / "tmp").exists()


def test_a_stop_that_must_not_wait_kills(fresh: Server) -> None:
    assert fresh.serve("start").returncode == 0
    with ThreadPoolExecutor() as pool:
        cut = pool.submit(post, fresh, LONGER)
        wait_until(lambda: n_open(fresh), "1")
        began = time.monotonic()
        assert fresh.serve("stop", None, "--timeout", "1").stdout == "killed, open: small 1\n"
        assert time.monotonic() - began < 10
        assert isinstance(cut.exception(), httpx.TransportError)
    assert fresh.processes() == []


@pytest.mark.parametrize(("n_signals", "code"), [(1, 0), (2, 137)])
def test_a_server_in_the_foreground_passes_the_signal_on(fresh: Server, n_signals: int, code: int) -> None:
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with background(fresh.command("run"), **pipes) as run, ThreadPoolExecutor() as pool:
        wait_until(lambda: fresh.health().returncode, 0, 60)
        long = pool.submit(post, fresh, LONG)
        wait_until(lambda: n_open(fresh), "1")
        run.send_signal(signal.SIGTERM)
        wait_until(lambda: '"stopping": true' in (fresh.home / "server.json").read_text(), True)
        if n_signals == 2:
            run.send_signal(signal.SIGINT)
        output, errors = run.communicate(timeout=100)
        assert (long.exception() is None) == (n_signals == 1)
    assert run.returncode == code, errors
    assert "ready after" in errors
    assert "MODEL_LOG" in output  # the log of a container
    assert fresh.processes() == []


def test_a_server_in_the_foreground_ends_with_java(fresh: Server) -> None:
    with background(fresh.command("run"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        wait_until(lambda: fresh.health().returncode, 0, 60)
        assert "a server runs already" in fresh.serve("run").stderr
        os.kill(json.loads((fresh.home / "server.json").read_text())["front"], signal.SIGKILL)
        wait_until(lambda: answers(f"{fresh.management}/models"), True)  # a new front is there
        java = next(process for process in fresh.processes() if process.name() == "java")
        java.kill()
        assert run.wait(20) == 137
    wait_until(fresh.processes, [])


def test_a_stopped_worker_is_neither_ready_nor_alive(fresh: Server) -> None:
    assert fresh.serve("start").returncode == 0
    began = time.monotonic()
    assert fresh.health().returncode == 0
    assert time.monotonic() - began < 5
    pid = httpx.get(f"{fresh.management}/models/small").json()[0]["workers"][0]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        for flags, word in (((), "ready"), (("--live",), "alive")):
            assert (
                fresh.health(*flags).stderr == f"not {word}: small: worker 9000 is stopped (process {pid})\n"
            )
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: fresh.health().returncode, 0)
    psutil.Process(pid).kill()
    wait_until(lambda: "small: 0 of 1 workers are ready" in fresh.health().stderr, True, 10)
    wait_until(lambda: fresh.health().returncode, 0, 60)


def test_java_that_hangs_is_neither_ready_nor_alive(fresh: Server) -> None:
    assert fresh.serve("start").returncode == 0
    java = next(process for process in fresh.processes() if process.name() == "java")
    java.suspend()
    try:
        for flags, word in (((), "ready"), (("--live",), "alive")):
            began = time.monotonic()
            done = fresh.health("--timeout", "1", *flags)
            assert done.stderr.startswith(f"not {word}: the server on port {fresh.port} does not answer (")
            assert time.monotonic() - began < 3
    finally:
        java.resume()
