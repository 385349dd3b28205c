"""A worker finds its number, and its host, whatever address the host listens on."""

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from genserve.serving.hosts.loopback import grpc_address, poster, worker_number


class Host(BaseHTTPRequestHandler):
    """Notes the requests that it gets."""

    requests: list[tuple[str, str | None, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.requests.append((self.path, self.headers["X-Token"], body))
        self.send_response(409)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    Host.requests = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Host) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_a_post_reaches_the_model_and_brings_the_status(
    port: int, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TS_INFERENCE_ADDRESS", f"http://{address}:{port}")
    assert poster("my model/1", "2.0", "X-Token")("abc") == 409
    assert Host.requests == [("/predictions/my%20model%2F1/2.0", "abc", b"{}")]


def test_a_host_that_does_not_answer_is_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TS_INFERENCE_ADDRESS", "http://127.0.0.1:9")
    assert poster("m", "1.0", "X-Token")("abc") == 0


@pytest.mark.parametrize(
    ("words", "number"),
    [
        (["--sock-type", "unix", "--sock-name", "/tmp/.ts.sock.9003", "--metrics-config", "x"], 9003),
        (["--sock-type", "tcp", "--host", "127.0.0.1", "--port", "9004"], 9004),
        (["tests", "-q"], 0),
        (["--sock-name"], 0),
    ],
)
def test_the_number_of_a_worker(words: list[str], number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["program", *words])
    assert worker_number() == number


def test_the_port_of_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TS_GRPC_INFERENCE_PORT", raising=False)
    assert grpc_address() == ("127.0.0.1", 7070)
    monkeypatch.setenv("TS_GRPC_INFERENCE_PORT", "8083")
    assert grpc_address() == ("127.0.0.1", 8083)
