"""Answers that are believed for a while, so that many who ask cost one look."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Believed(Generic[Value]):
    """What a look shows, for everybody who asks within some seconds.

    Args:
        look: returns it; an error of it is not kept.
        seconds: that it is believed.
    """

    def __init__(self, look: Callable[[], Awaitable[Value]], seconds: float) -> None:
        self._look, self._seconds = look, seconds
        self._until = -1.0
        self._value: Value
        self._looking = asyncio.Lock()

    def last(self) -> Value | None:
        """Return what was last looked at, however long ago; None before the first look."""
        return getattr(self, "_value", None)

    async def __call__(self) -> Value:
        """Return what the last look has shown, or look; raises as `look`."""
        async with self._looking:
            if time.monotonic() >= self._until:
                self._value = await self._look()
                self._until = time.monotonic() + self._seconds
            return self._value
