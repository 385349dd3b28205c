"""Clients who leave before their answer is there: the one event for that is Starlette's ClientDisconnect.

A read of a body raises it, and so does `while_there`. `metrics.Measured` catches and counts it.
"""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

Result = TypeVar("Result")


async def while_there(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of some work, which is cancelled if the client leaves.

    Args:
        receive: of the request, whose body has been read.

    Raises:
        ClientDisconnect: the client has left.
    """
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        leaving.cancel()
        working.cancel()
        with suppress(BaseException):
            await working


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
