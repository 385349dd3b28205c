"""The guard's frames are read by gRPC's own server, whose stop waits for the call."""

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import grpc
import pytest

from genserve.serving.hosts.guard import PATH, Guard


class Calls(grpc.GenericRpcHandler):
    """Keeps each call open until its client ends it."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.messages = 0
        self.ended = threading.Event()

    def service(self, details: Any) -> Any:
        self.paths.append(details.method)
        return grpc.stream_stream_rpc_method_handler(self._talk)

    def _talk(self, messages: Iterator[bytes], _: Any) -> Iterator[bytes]:
        for _message in messages:
            self.messages += 1
        self.ended.set()
        yield from ()


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def server(calls: Calls) -> Iterator[tuple[grpc.Server, int]]:
    server = grpc.server(ThreadPoolExecutor(4), handlers=[calls])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield server, port
    server.stop(None).wait()


@pytest.fixture
def guard(server: tuple[grpc.Server, int]) -> Iterator[Guard]:
    with closing(Guard(("127.0.0.1", server[1]))) as guard:
        yield guard


def test_a_server_that_stops_waits_until_the_guard_lets_it(
    server: tuple[grpc.Server, int], calls: Calls, guard: Guard
) -> None:
    host, _ = server
    heard = threading.Event()

    def wait() -> None:
        guard.wait()
        heard.set()

    threading.Thread(target=wait, daemon=True).start()
    assert not heard.wait(0.3)
    stopped = host.stop(60)
    assert heard.wait(5)  # at once, long before the call is cut
    assert not stopped.wait(0.5)
    began = time.monotonic()
    guard.release()
    assert stopped.wait(5)
    assert time.monotonic() - began < 5
    assert calls.ended.is_set()
    assert calls.paths == [PATH]
    assert calls.messages == 0


def test_a_host_that_dies_is_an_error(server: tuple[grpc.Server, int], guard: Guard) -> None:
    host, _ = server
    host.stop(None).wait()
    goodbyes = 0
    with contextlib.suppress(OSError, EOFError):
        while guard.wait() is None and goodbyes < 3:
            goodbyes += 1
    assert goodbyes < 3  # up to two come before the connection is closed


def test_nothing_listens(server: tuple[grpc.Server, int]) -> None:
    host, port = server
    host.stop(None).wait()
    with pytest.raises(OSError, match="refused"):
        Guard(("127.0.0.1", port))
