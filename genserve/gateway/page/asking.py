"""What the page asks of the server, and what goes wrong with it, as sentences for people."""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from genserve.gateway.quotas import WORK, Quotas
from genserve.gateway.upstream import Answer, Upstream, UpstreamError
from genserve.serving.fields import BadRequest

Key = TypeVar("Key")
Item = TypeVar("Item")
Line = dict[str, Any]


class Refused(Exception):  # noqa: N818 (a refusal is what people call it)
    """What was asked cannot be done.

    Args:
        sentence: for people.
        field: the field of the request that it concerns, or "".
    """

    def __init__(self, sentence: str, field: str = "") -> None:
        super().__init__(sentence)
        self.sentence, self.field = sentence, field

    @classmethod
    def of(cls, body: bytes, status: int) -> "Refused":
        """Return what the body of an error means, whether a model wrote it, the gateway or the host."""
        try:
            values = json.loads(body)
            message, allowed = str(values["message"]), values.get("allowed", "")
        except (ValueError, LookupError, AttributeError, TypeError):
            return cls(f"The server answered with status {status} and without a reason.")
        line = f"{message} (allowed: {allowed})" if allowed else message
        return cls(f"{line[:1].upper()}{line[1:].removesuffix('.')}.", str(values.get("field", "")))


@dataclass(frozen=True)
class Visitor:
    """A visitor of the page: what the server is asked on their behalf counts against their limits.

    Args:
        upstream: the server.
        quotas: of the gateway's clients.
        name: among these clients.
    """

    upstream: Upstream
    quotas: Quotas
    name: str

    async def answer(self, model: str, fields: Mapping[str, Any], explain: bool = False) -> Line:
        """Return a model's JSON answer.

        Raises:
            Refused: there is none.
        """
        async with self._asked(model, fields, explain) as reply:
            value: Line = json.loads(await reply.read())
        return value

    async def lines(self, model: str, fields: Mapping[str, Any]) -> AsyncGenerator[Line, None]:
        """Yield the lines of a model's streamed answer as they come; closing this frees the server's place.

        Raises:
            Refused: the answer is an error, or ends with one.
        """
        async with self._asked(model, {**fields, "stream": "jsonl"}) as reply:
            rest = b""
            async for chunk in reply.body:
                *complete, rest = (rest + chunk).split(b"\n")
                for line in complete:
                    value = json.loads(line)
                    if "error" in value:
                        raise Refused.of(line, reply.status)
                    yield value

    @asynccontextmanager
    async def _asked(
        self, model: str, fields: Mapping[str, Any], explain: bool = False
    ) -> AsyncGenerator[Answer, None]:
        try:
            await self.upstream.check(model)
            with self.quotas.opened(self.name):
                async with self.upstream.predict(model, fields, explain) as reply:
                    if reply.status != 200:
                        raise Refused.of(await reply.read(), reply.status)
                    work = reply.headers.get(WORK.decode(), "")
                    await self.quotas.charge(self.name, int(work) if work.isdigit() else 0)
                    yield reply
        except (BadRequest, UpstreamError) as error:
            raise _refused(error) from error


def _refused(error: BadRequest | UpstreamError) -> Refused:
    body = error.body() if isinstance(error, BadRequest) else json.dumps({"message": str(error)}).encode()
    return Refused.of(body, error.status)


async def merged(
    streams: Mapping[Key, AsyncGenerator[Item, None]],
) -> AsyncGenerator[tuple[Key, Item | Refused], None]:
    """Yield the items of several streams as they come, each with its key; a refusal ends its stream.

    Closing this closes all of them.
    """
    items: asyncio.Queue[tuple[Key, Item | Refused | None]] = asyncio.Queue()

    async def follow(key: Key, stream: AsyncGenerator[Item, None]) -> None:
        try:
            async with aclosing(stream):
                async for item in stream:
                    items.put_nowait((key, item))
        except Refused as refusal:
            items.put_nowait((key, refusal))
        finally:
            items.put_nowait((key, None))

    tasks = [asyncio.create_task(follow(key, stream)) for key, stream in streams.items()]
    try:
        left = len(tasks)
        while left:
            key, item = await items.get()
            if item is None:
                left -= 1
            else:
                yield key, item
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def in_base64(data: bytes) -> str:
    """Return bytes as JSON carries them."""
    return base64.b64encode(data).decode()
