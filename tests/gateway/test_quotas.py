"""Limits of one client, and of bodies: what is above one is refused, and the others go on."""

import asyncio
import json
from typing import Any

import pytest
from limits.errors import StorageError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genserve.gateway.bodies import BODY_MAX, UPLOAD_MAX, Bounded
from genserve.gateway.options import Limits
from genserve.gateway.quotas import Counted, Quotas, client_of


async def works(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer that the work of the path was done."""
    work = scope["path"].removeprefix("/").encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-work", work)]})
    await send({"type": "http.response.body", "body": b""})


def client(app: ASGIApp, limits: Limits, address: str = "10.0.0.1") -> TestClient:
    return TestClient(Counted(app, Quotas(limits)), client=(address, 1))


def test_requests_above_the_limit_of_a_minute_are_429_with_a_time() -> None:
    asking = client(works, Limits(requests=3, work=0, open=0))
    assert [asking.get("/0").status_code for _ in range(4)] == [200, 200, 200, 429]
    refused = asking.get("/0")
    assert 1 <= int(refused.headers["Retry-After"]) <= 120
    assert "allowed: 3 requests a minute" in refused.json()["error"]
    assert asking.get("/live").status_code == 200


def test_work_is_charged_after_the_answer_and_who_has_spent_it_waits() -> None:
    asking = client(works, Limits(requests=0, work=100, open=0))
    assert [asking.get(f"/{work}").status_code for work in (99, 1000, 1)] == [200, 200, 429]
    refused = asking.get("/1")
    assert 1 <= int(refused.headers["Retry-After"]) <= 61
    assert "work of 100 a minute" in refused.json()["message"]


def test_a_client_s_limit_is_not_another_s() -> None:
    app = Counted(works, Quotas(Limits(requests=1, work=0, open=0)))
    first, second = (TestClient(app, client=(f"10.0.0.{k}", 1)) for k in (1, 2))
    assert [first.get("/0").status_code for _ in range(2)] == [200, 429]
    assert second.get("/0").status_code == 200


def test_zero_is_no_limit() -> None:
    asking = client(works, Limits(requests=0, work=0, open=0))
    assert {asking.get("/1000000").status_code for _ in range(20)} == {200}


@pytest.mark.parametrize(
    ("role", "address", "name"),
    [
        ("client", "10.0.0.1", "client@10.0.0.1"),
        (None, "2001:db8:1:2:aaaa::1", "None@2001:db8:1:2::/64"),
        (None, "2001:db8:1:2:bbbb::1", "None@2001:db8:1:2::/64"),
        (None, "a name", "None@a name"),
    ],
)
def test_a_client_is_a_token_and_an_address(role: str | None, address: str, name: str) -> None:
    assert client_of({"client": (address, 1), "state": {"role": role}}) == name


def test_open_requests_above_the_limit_are_429_until_one_has_ended() -> None:
    may_end = asyncio.Event()
    statuses: list[int] = []

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        await may_end.wait()
        await works(scope, receive, send)

    async def main() -> None:
        app = Counted(waits, Quotas(Limits(requests=0, work=0, open=2)))
        first = [asyncio.ensure_future(asked(app)) for _ in range(3)]
        await asyncio.sleep(0.05)
        may_end.set()
        statuses.extend(await asyncio.gather(*first))
        statuses.append(await asked(app))

    asyncio.run(main())
    assert statuses == [200, 200, 429, 200]


async def asked(app: ASGIApp, *parts: bytes, path: str = "/0", pause_s: float = 0.0, **headers: str) -> int:
    """Send a request in parts and return the status of its answer."""
    statuses: list[int] = []
    left = [*parts, b""]

    async def receive() -> Message:
        await asyncio.sleep(pause_s)
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope: Scope = {
        "type": "http", "method": "POST", "path": path, "client": ("10.0.0.1", 1), "query_string": b"",
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    try:
        await app(scope, receive, send)
    except HTTPException as error:
        statuses.append(error.status_code)
    return statuses[0]


async def reads(scope: Scope, receive: Receive, send: Send) -> None:
    """Read a body to its end and answer."""
    while (await receive()).get("more_body"):
        pass
    await works(scope, receive, send)


def test_a_body_above_the_limit_is_413_before_and_while_it_is_read() -> None:
    app = Bounded(reads)
    half = b"x" * (BODY_MAX // 2)
    assert asyncio.run(asked(app, half, half)) == 200
    assert asyncio.run(asked(app, half, half, b"x")) == 413
    assert asyncio.run(asked(app, content_length=str(BODY_MAX + 1))) == 413
    assert asyncio.run(asked(app, content_length="9" * 5000)) == 413
    assert asyncio.run(asked(app, half, half, b"x", path="/page/upload")) == 200
    assert asyncio.run(asked(app, content_length=str(UPLOAD_MAX + 1), path="/page/upload")) == 413


def test_a_body_that_comes_too_slowly_is_408() -> None:
    parts = [b"x"] * 20
    assert asyncio.run(asked(Bounded(reads, seconds=0.3), *parts, pause_s=0.05)) == 408
    assert asyncio.run(asked(Bounded(reads, seconds=60), *parts, pause_s=0.01)) == 200


def test_a_redis_that_is_no_address_or_has_no_package_is_named() -> None:
    with pytest.raises(ValueError, match="--redis"):
        Quotas(Limits(), "nonsense://127.0.0.1")


def test_refusals_have_the_one_form() -> None:
    asking = client(works, Limits(requests=1, work=0, open=0))
    asking.get("/0")
    body: dict[str, Any] = json.loads(asking.get("/0").content)
    assert body.keys() == {"error", "message"}


def test_counts_that_go_away_between_two_looks_cost_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def gone(*names: object) -> None:
        raise StorageError(ConnectionError("gone"))

    async def second() -> Response | None:
        quotas = Quotas(Limits(requests=1))
        assert await quotas.refusal("a") is None
        monkeypatch.setattr(quotas._requests[1], "get_window_stats", gone)
        return await quotas.refusal("a")

    refused = asyncio.run(second())
    assert refused is not None
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "60")
