"""Bodies of requests: at most as long as the server takes them, and all of one within a time."""

import time

import anyio
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genserve.gateway.errors import answer

BODY_MAX = 262_144  # bytes: max_request_size of config.properties
UPLOAD_MAX = 16 * 2**20  # of the page, which makes a picture smaller before the server gets it
UPLOADS = "/page/"
BODY_S = 30.0  # for a whole body
CLOSE = {"Connection": "close"}  # the rest of the body is not read


class Bounded:
    """The middleware that cuts bodies which are too long or too slow.

    Args:
        app: reads what is left.
        seconds: for a body.
    """

    def __init__(self, app: ASGIApp, seconds: float = BODY_S) -> None:
        self._app, self._seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on whose reads fail with 413 or 408."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = UPLOAD_MAX if scope["path"].startswith(UPLOADS) else BODY_MAX
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if length.isdigit() and int(length[:20]) > most:
            await answer(413, too_long(most), CLOSE)(scope, receive, send)
            return
        size, ended, answered, until = 0, False, False, time.monotonic() + self._seconds

        async def reading() -> Message:
            nonlocal size, ended
            if ended or answered:  # all that can come is that the client leaves
                return await receive()
            try:
                with anyio.fail_after(max(0.0, until - time.monotonic())):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"the body took longer than {self._seconds:g} s", CLOSE) from None
            size += len(message.get("body", b""))
            if size > most:
                raise HTTPException(413, too_long(most), CLOSE)
            ended = message["type"] != "http.request" or not message.get("more_body", False)
            return message

        async def sending(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        await self._app(scope, reading, sending)


def too_long(most: int) -> str:
    """Return what a client is told whose body is too long."""
    return f"the body is too long (allowed: at most {most} bytes)"
