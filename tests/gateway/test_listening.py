"""Connections of a gateway: a client that does not end its head is cut, and a slow answer is not."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvicorn
from real_server import free_ports
from starlette.types import Receive, Scope, Send

from genserve.gateway import listening

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, bytes]]
HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"


async def slow(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer after longer than a head may take."""
    await asyncio.sleep(3 * listening.HEAD_S)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def talking(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, bytes]],
) -> bytes:
    """Return what a client gets that talks to a listening program."""

    async def main() -> bytes:
        port = free_ports(1)
        config = uvicorn.Config(slow, port=port, http=listening.Patient, lifespan="off", log_level="error")
        server = uvicorn.Server(config)
        serving = asyncio.ensure_future(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            return await asyncio.wait_for(talk(reader, writer), 60)
        finally:
            writer.close()
            server.should_exit = True
            await serving

    return asyncio.run(main())


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "HEAD_S", 0.3)


async def dripped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Send a header again and again; return what comes before the connection is closed."""
    with_end = asyncio.ensure_future(reader.read())
    writer.write(HEAD)
    while not with_end.done():
        writer.write(b"X: y\r\n")
        await asyncio.sleep(0.05)
    return with_end.result()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    return await reader.read()


async def patient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Send two requests, one after the other; return the ends of both answers."""
    ends = b""
    for _ in range(2):
        writer.write(HEAD + b"\r\n")
        ends += (await reader.readuntil(b"ok"))[-2:]
    return ends


@pytest.mark.parametrize("talk", [silent, dripped])
def test_a_head_that_does_not_end_is_cut(talk: Any) -> None:
    assert talking(talk) == b""


def test_an_answer_may_take_longer_than_a_head() -> None:
    assert talking(patient) == b"okok"
