"""Connections of a gateway: a client that does not end the head of its request is cut; uvicorn waits on."""

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

HEAD_S = 10.0  # for the first lines of a request, with its headers


class Patient(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's connection, with a time for the head of each request."""

    _cut: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take in what has come; begin to wait if it is a part of a head, and end if it is all of one."""
        super().data_received(data)
        in_head = self.cycle is None or self.cycle.response_complete
        if not in_head:
            self._stop()
        elif self._cut is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._cut = self.loop.call_later(HEAD_S, self._late)

    def _stop(self) -> None:
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None

    def _late(self) -> None:
        self._cut = None
        if (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing():
            self.transport.close()
