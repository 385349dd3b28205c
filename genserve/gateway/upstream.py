"""The TorchServe behind the gateway, asked on behalf of clients who may leave at any time."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
from starlette.datastructures import Headers
from yarl import URL

from genserve.gateway.believed import Believed
from genserve.operate.api import ManagementError, Server
from genserve.operate.versions import Version, models, versions
from genserve.serving.fields import BadRequest
from genserve.serving.hosts.held import CONTENT_TYPE, HEADER, NOTICE

MODELS_S = 1.0  # that a list of the models is believed where it matters
CONNECT_S, ANSWER_S = 5.0, 600.0
OF_A_STREAM = (
    "content-type", "content-length", "transfer-encoding", "connection", "x-accel-buffering",
    "ts_stream_next",
)  # fmt: skip
Chunks = AsyncIterator[bytes]
Result = TypeVar("Result")


class UpstreamError(Exception):
    """The server behind the gateway cannot be asked now: 502 or 503."""

    def __init__(self, message: str, status: int = 503) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Answer:
    """What the server answers.

    Args:
        body: its bytes, as they come.
    """

    status: int
    headers: Headers
    body: Chunks

    async def read(self) -> bytes:
        """Return the whole body."""
        return b"".join([chunk async for chunk in self.body])


class Upstream:
    """The server's predictions, and which models it has.

    Args:
        find: returns its addresses; the one of its predictions stays what it is at first.

    Attributes:
        models: returns the names of the models that are registered.
        versions: returns the versions of each model. Both raise UpstreamError: the server does not answer.
    """

    def __init__(self, find: Callable[[], Server]) -> None:
        self._predictions = find().predictions
        self._session: aiohttp.ClientSession | None = None  # belongs to the loop that asks first
        self.models = Believed(lambda: _asked(models, find), MODELS_S)
        self.versions = Believed(lambda: _asked(_every_version, find), MODELS_S)

    async def close(self) -> None:
        """Close its connections."""
        if self._session is not None:
            await self._session.close()

    async def check(self, name: str) -> None:
        """Raise BadRequest, status 404, if there is no such model.

        A name that was known a while ago passes: the host itself refuses it, and this costs no look.
        """
        if name not in (self.models.last() or []) and name not in (names := await self.models()):
            raise BadRequest("model", "there is no such model", ", ".join(sorted(names)), 404)

    @asynccontextmanager
    async def asked(
        self, method: str, path: str, headers: Mapping[str, str], content: bytes = b""
    ) -> AsyncIterator[Answer]:
        """Send a request; the server is told to give it up when the block is left before the body has ended.

        Args:
            path: with its query.

        Raises:
            UpstreamError: the server does not answer.
        """
        if self._session is None:
            self._session = _session()
        url = URL(f"{self._predictions}{path}", encoded=True)
        sent = {**headers, HEADER: NOTICE}
        try:
            response = await self._session.request(method, url, headers=sent, data=content or None)
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            raise UpstreamError(f"the server does not answer ({_reason(error)})") from error
        try:
            if response.content_type == CONTENT_TYPE:
                yield await _late(response)
            else:
                headers = Headers(raw=[(name.lower(), value) for name, value in response.raw_headers])
                yield Answer(response.status, headers, response.content.iter_any())
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            raise UpstreamError(f"the server's answer broke off ({_reason(error)})", 502) from error
        finally:
            if response.content.at_eof():
                response.release()
            else:  # the host notices that the connection ends
                response.close()

    @asynccontextmanager
    async def predict(
        self, name: str, fields: Mapping[str, Any], explain: bool = False
    ) -> AsyncIterator[Answer]:
        """Send fields to a model, as `asked`."""
        path = f"/{'explanations' if explain else 'predictions'}/{quote(name, safe='')}"
        body = json.dumps(fields).encode()
        async with self.asked("POST", path, {"Content-Type": "application/json"}, body) as answer:
            yield answer


async def _asked(look: Callable[[Server], Result], find: Callable[[], Server]) -> Result:
    try:
        return await asyncio.to_thread(lambda: look(find()))
    except ManagementError as error:
        raise UpstreamError(str(error)) from error


def _every_version(server: Server) -> list[list[Version]]:
    """Return the versions of every model; a model that is removed meanwhile is left out."""
    every = []
    for name in models(server):
        try:
            every.append(versions(server, name))
        except ManagementError as error:
            if error.status != 404:
                raise
    return every


async def _late(response: aiohttp.ClientResponse) -> Answer:
    """Return the ordinary answer of one that has become a stream (serving.hosts.held)."""
    start, chunks = b"", response.content.iter_any()
    async for chunk in chunks:
        start += chunk
        if start.count(b"\n") >= 2:
            break
    else:
        raise UpstreamError("the server ended before the answer was ready", 502)
    _, head, rest = start.split(b"\n", 2)
    values = json.loads(head)
    # the host's own headers are those of the answer, too
    own = {name.lower(): value for name, value in response.headers.items() if name.lower() not in OF_A_STREAM}
    later = {name.lower(): str(value) for name, value in values["headers"].items()}
    headers = Headers(own | later | {"content-type": values["content_type"]})
    return Answer(values["status"], headers, _after(rest, chunks))


async def _after(first: bytes, chunks: Chunks) -> Chunks:
    if first:
        yield first
    async for chunk in chunks:
        yield chunk


def _session() -> aiohttp.ClientSession:
    """Return connections that take what they are given as it is."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=ANSWER_S),
        skip_auto_headers=("Content-Type", "Accept-Encoding", "User-Agent"),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        max_field_size=2**16,
        max_line_size=2**16,
    )


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
