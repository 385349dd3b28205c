"""Answers of a server that is played: its headers reach a client in whatever case, soon or late."""

import asyncio
import json

import pytest

from genserve.gateway.upstream import Upstream
from genserve.operate.api import Server
from genserve.serving.hosts.held import CONTENT_TYPE

HEAD = {"status": 207, "content_type": "image/png", "headers": {"X-Work": "7", "X-NFE": "18"}}
SOON = b"HTTP/1.1 207 Multi\r\nContent-Type: image/png\r\nX-Work: 7\r\nX-NFE: 18\r\nX-Host: a\r\n"
LATE = f"HTTP/1.1 200 OK\r\nContent-Type: {CONTENT_TYPE}\r\nX-Work: 1\r\nX-Host: a\r\n".encode()


def answered(*parts: bytes) -> tuple[int, list[str | None], bytes]:
    """Return status, headers and body of an answer that comes in these parts."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.01)
        writer.close()

    async def main() -> tuple[int, list[str | None], bytes]:
        host = await asyncio.start_server(play, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{host.sockets[0].getsockname()[1]}"
        upstream = Upstream(lambda: Server(url, url))
        try:
            async with upstream.predict("a", {}) as answer:
                names = ("X-Work", "x-nfe", "X-HOST", "content-type", "connection")
                return answer.status, [answer.headers.get(name) for name in names], await answer.read()
        finally:
            await upstream.close()
            host.close()
            await host.wait_closed()

    return asyncio.run(main())


@pytest.mark.parametrize("late", [False, True])
def test_an_answer_has_its_status_headers_and_bytes_whether_it_comes_soon_or_late(late: bool) -> None:
    close = b"Connection: close\r\n\r\n"
    if late:
        head = json.dumps(HEAD).encode()
        status, headers, body = answered(LATE + close, b"\n", head[:20], head[20:] + b"\n\x89P", b"NG\n")
    else:
        status, headers, body = answered(SOON + close, b"\x89P", b"NG\n")
    assert (status, body) == (207, b"\x89PNG\n")
    assert headers[:4] == ["7", "18", "a", "image/png"]
    assert headers[4] == (None if late else "close")
