"""How much one client may ask: requests a minute, work a minute, open requests.

A client is a token and an address, or an address alone; a network of IPv6 (/64) counts as one address. Work
is what the server's answers name in X-Work, or what a route has noted that asks the server on a client's
behalf. It is charged after the answer: who has spent more than a minute's gets nothing before the minute is
over. Open requests are counted by each gateway for itself.
"""

import contextlib
import logging
import math
import time
from collections import Counter
from collections.abc import Awaitable, Iterator
from ipaddress import IPv6Address, ip_network
from typing import TypeVar

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.aio.storage import Storage
from limits.aio.strategies import FixedWindowRateLimiter, RateLimiter, SlidingWindowCounterRateLimiter
from limits.errors import ConfigurationError, StorageError
from limits.storage import storage_from_string
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genserve.gateway.errors import answer
from genserve.gateway.options import Limits

log = logging.getLogger(__name__)
FREE = ("/live", "/page/", "/static-offline-docs/")  # GETs of these addresses cost nothing
WORK = b"x-work"
MINUTE_S = 60.0
Limit = tuple[RateLimitItem, RateLimiter]
Result = TypeVar("Result")


class Quotas:
    """What clients have asked for.

    Args:
        limits: of each client.
        redis: URL of a Redis that several gateways share; None keeps the counts in memory.

    Raises:
        ValueError: the URL is none, or the package that speaks to a Redis is missing.
    """

    def __init__(self, limits: Limits, redis: str | None = None) -> None:
        self._limits = limits
        self._open: Counter[str] = Counter()
        storage = _storage(redis)
        self._requests: Limit = (
            RateLimitItemPerMinute(limits.requests),
            SlidingWindowCounterRateLimiter(storage),
        )
        # a fixed window takes a charge that exceeds it, and remembers it
        self._work: Limit = (RateLimitItemPerMinute(limits.work), FixedWindowRateLimiter(storage))

    async def refusal(self, client: str) -> Response | None:
        """Count a request; return why it is refused, None if it is not."""
        limits = self._limits
        if limits.open and self._open[client] >= limits.open:
            return _refused(f"{limits.open} requests at a time", 1)
        if limits.work:
            item, counts = self._work
            if not await _kept(counts.test(item, "work", client), True):
                return _refused(f"work of {limits.work} a minute", await _left(counts, item, "work", client))
        if limits.requests:
            item, counts = self._requests
            if not await _kept(counts.hit(item, "requests", client), True):
                wait = await _left(counts, item, "requests", client)
                return _refused(f"{limits.requests} requests a minute", wait)
        return None

    async def charge(self, client: str, work: int) -> None:
        """Charge work to a client; routes whose answers have X-Work, or that `note` it, need not."""
        item, counts = self._work
        if self._limits.work and work > 0:
            await _kept(counts.hit(item, "work", client, cost=work), True)

    @contextlib.contextmanager
    def opened(self, client: str) -> Iterator[None]:
        """Count a request as open until the block ends."""
        self._open[client] += 1
        try:
            yield
        finally:
            self._open[client] -= 1
            if not self._open[client]:
                del self._open[client]


class Counted:
    """The middleware that counts requests and refuses those of clients who have asked too much.

    Args:
        app: gets what is not refused.
        quotas: of the gateway.
    """

    def __init__(self, app: ASGIApp, quotas: Quotas) -> None:
        self._app, self._quotas = app, quotas

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http" or (scope["method"] == "GET" and scope["path"].startswith(FREE)):
            await self._app(scope, receive, send)
            return
        client, work = client_of(scope), 0

        async def noting(message: Message) -> None:
            nonlocal work
            if message["type"] == "http.response.start":
                if noted := _noted(
                    scope
                ):  # then the answer is the gateway's own, and says it as the server's do
                    message = {**message, "headers": [*message["headers"], (WORK, b"%d" % noted)]}
                work = next((_number(value) for name, value in message["headers"] if name == WORK), 0)
            await send(message)

        if refusal := await self._quotas.refusal(client):
            await refusal(scope, receive, send)
            return
        with self._quotas.opened(client):
            try:
                await self._app(scope, receive, noting)
            finally:
                # a client that has left before the answer owes what was done by then
                await self._quotas.charge(client, work or _noted(scope))


def note(scope: Scope, headers: Headers) -> None:
    """Add the work that an answer of the server names to what the request of a client costs."""
    state = scope.setdefault("state", {})
    state["work"] = state.get("work", 0) + _number(headers.get(WORK.decode(), "").encode())


def _noted(scope: Scope) -> int:
    work: int = scope.get("state", {}).get("work", 0)
    return work


def client_of(scope: Scope) -> str:
    """Return a client's name: the role of its token, and its address."""
    host = scope["client"][0] if scope.get("client") else "?"
    with contextlib.suppress(ValueError):
        host = str(ip_network((IPv6Address(host), 64), strict=False)) if ":" in host else host
    return f"{scope.get('state', {}).get('role')}@{host}"


def _storage(redis: str | None) -> Storage:
    try:
        if redis is None:
            storage = storage_from_string("async+memory://")
        else:
            address = f"async+{redis.removeprefix('async+')}"
            storage = storage_from_string(address, implementation="redispy", wrap_exceptions=True)
    except ConfigurationError as error:
        raise ValueError(f"--redis: {error} (its package: pip install redis)") from error
    assert isinstance(storage, Storage)
    return storage


async def _kept(count: Awaitable[Result], otherwise: Result) -> Result:
    """Return what a count says, or the other value, with a line in the log, if the counts are away."""
    try:
        return await count
    except StorageError as error:
        log.warning("limits are not kept: %s", error)
        return otherwise


async def _left(counts: RateLimiter, item: RateLimitItem, *names: str) -> float:
    """Return in how many seconds a client may ask again; a minute if the counts are away by now."""
    window = await _kept(counts.get_window_stats(item, *names), None)
    return window.reset_time - time.time() if window else MINUTE_S


def _refused(limit: str, wait: float) -> Response:
    seconds = max(1, math.ceil(wait))
    message = f"too much of one client (allowed: {limit}): ask again in {seconds} s"
    return answer(429, message, {"Retry-After": str(seconds)})


def _number(value: bytes) -> int:
    return int(value) if value.isdigit() else 0
