"""What a client sees through, on a real HTTP server that does what it is told to."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from real_server import free_ports

from genserve.drawing import client
from genserve.drawing.client import answers, mapped
from genserve.serving.fields import problem

# fields -> status, body and headers; none hangs up
Say = Callable[[dict[str, Any]], tuple[Any, ...] | None]

BUSY = (503, {"code": 503, "type": "ServiceUnavailableException", "message": "the queue is full"})


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "WAITS_S", (0.01, 0.02, 0.04))


@contextmanager
def saying(say: Say, port: int = 0, headers: list[str | None] | None = None) -> Iterator[str]:
    """Run a server that answers so, and yield its address; `headers` gets every Authorization."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            fields = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if headers is not None:
                headers.append(self.headers["Authorization"])
            reply = say(fields)
            if reply is None:
                return
            status, value, *more = reply
            body = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            for header in more:
                self.send_header(*header)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/predictions/model"
        server.shutdown()
        thread.join()


def first_then(*before: tuple[int, Any] | None) -> tuple[Say, list[int]]:
    """Return what says these things to each request before it echoes it, and what was asked."""
    received: list[int] = []

    def say(fields: dict[str, Any]) -> tuple[int, Any] | None:
        received.append(fields["k"])
        tries = received.count(fields["k"])
        return before[tries - 1] if tries <= len(before) else (200, fields)

    return say, received


def numbered(n: int) -> Iterator[dict[str, Any]]:
    return ({"k": k} for k in range(n))


def test_answers_come_in_order_and_no_more_than_so_many_are_in_flight():
    lock, present, most, taken, kept = threading.Lock(), 0, 0, 0, 0

    def say(fields: dict[str, Any]) -> tuple[int, Any]:
        nonlocal present, most
        with lock:
            present += 1
            most = max(most, present)
        time.sleep(0.03 if fields["k"] % 3 == 0 else 0.005)  # the later ones are done before
        with lock:
            present -= 1
        return 200, fields

    def requests() -> Iterator[dict[str, Any]]:
        nonlocal taken
        for fields in numbered(40):
            taken += 1
            yield fields
            assert taken - kept <= 2 * 3 + 1  # taken as there is room, not all at once

    with saying(say) as address:
        for k, answer in enumerate(answers(address, requests(), 3)):
            kept += 1
            assert answer == {"k": k}
    assert kept == 40
    assert most == 3


@pytest.mark.parametrize(
    "trouble",
    [
        BUSY,
        (502, b"<html>no server behind this proxy</html>"),
        (500, {"message": "Worker died."}),
        (429, {"error": "too many requests"}),
    ],
    ids=["a full queue", "a proxy without a server", "a worker that died", "too fast for a proxy"],
)
def test_what_will_pass_is_waited_out(trouble: tuple[int, Any]):
    say, received = first_then(trouble, trouble)
    with saying(say) as address:
        assert list(answers(address, numbered(6), 2)) == [{"k": k} for k in range(6)]
    assert sorted(received) == [k for k in range(6) for _ in range(3)]


def test_a_busy_server_is_given_the_time_that_it_asks_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(client, "SERVER_WAIT_MAX_S", 0.2)
    say, received = first_then((503, {"error": "too busy"}, ("Retry-After", "3600")))
    began = time.monotonic()
    with saying(say) as address:
        assert list(answers(address, numbered(1), 1)) == [{"k": 0}]
    assert received == [0, 0]
    assert 0.2 <= time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7), ("", 0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0), ("-1", 0), ("9" * 400, 300), ("\u00b2", 0)],
)
def test_a_time_to_wait_is_whole_seconds(header: str, seconds: float):
    assert client.retry_after(header) == seconds


def test_a_connection_that_breaks_is_asked_again():
    say, received = first_then(None, None)
    with saying(lambda fields: say(fields) if fields["k"] else (200, fields)) as address:
        assert list(answers(address, numbered(4), 1)) == [{"k": k} for k in range(4)]
    assert received == [1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_a_server_that_starts_anew_is_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(client, "WAITS_S", (0.02,) * 100)
    port = free_ports(1)
    with saying(lambda fields: (200, fields), port) as address:
        asking = answers(address, numbered(20), 2)
        assert next(asking) == {"k": 0}
    time.sleep(0.1)
    with saying(lambda fields: (200, fields), port):
        assert [answer["k"] for answer in asking] == list(range(1, 20))


def test_trouble_that_does_not_pass_is_said():
    say, received = first_then(*[BUSY] * 9)
    with saying(say) as address, pytest.raises(ValueError, match=r"server: the queue is full \(status 503\)"):
        list(answers(address, numbered(1)))
    assert len(received) == 1 + len(client.WAITS_S)


def test_a_token_of_the_environment_is_sent_and_no_other_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login somebody password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    received: list[str | None] = []
    for token in ("", "abc"):
        monkeypatch.setenv("GENSERVE_TOKEN", token)
        with saying(lambda fields: (200, fields), headers=received) as address:
            list(answers(address, numbered(1)))
    assert received == [None, "Bearer abc"]


def test_a_wrong_address_is_said_at_once():
    began = time.perf_counter()
    with pytest.raises(ValueError, match="does not answer"):
        list(answers(f"http://127.0.0.1:{free_ports(1)}/predictions/model", numbered(3)))
    with pytest.raises(ValueError, match="does not answer"):
        list(answers("no address", numbered(1)))
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (
            400,
            json.loads(problem("steps", "too many", "1 to 1000")),
            r"^steps: too many \(allowed: 1 to 1000\)$",
        ),
        (500, json.loads(problem("", "sampling failed", "")), "^sampling failed$"),
        (404, {"code": 404, "message": "Model not found: x"}, r"^server: Model not found: x \(status 404\)$"),
        (413, b"too large", r"^server: too large \(status 413\)$"),
    ],
)
def test_a_refusal_is_an_error_and_is_not_retried(status: int, body: Any, message: str):
    say, received = first_then(*[(status, body)] * 9)
    with saying(say) as address, pytest.raises(ValueError, match=message):
        list(answers(address, numbered(1)))
    assert received == [0]


def test_a_failure_ends_those_that_still_wait(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(client, "WAITS_S", (60.0,))
    began = time.perf_counter()
    with (
        saying(lambda fields: (400, b"no such thing") if fields["k"] == 0 else BUSY) as address,
        pytest.raises(ValueError, match="no such thing"),
    ):
        list(answers(address, numbered(9), 3))
    assert time.perf_counter() - began < 10


def test_mapped_wants_a_thread():
    with pytest.raises(ValueError, match="at least 1 must be in flight, got 0"):
        list(mapped(str, [1], 0))
