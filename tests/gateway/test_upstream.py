"""The server as the gateway asks it: plain answers, late ones, clients that leave, no model."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import httpx
import pytest
from real_server import Server, wait_until
from starlette.datastructures import Headers

from genserve.gateway.upstream import Upstream, UpstreamError
from genserve.operate.api import Server as Addresses
from genserve.serving.fields import BadRequest

pytestmark = pytest.mark.server
LATE: dict[str, Any] = {"num_samples": 4, "steps": 400, "seed": 1}
Result = TypeVar("Result")


def asking(addresses: Addresses, use: Callable[[Upstream], Awaitable[Result]]) -> Result:
    async def main() -> Result:
        upstream = Upstream(lambda: addresses)
        try:
            return await use(upstream)
        finally:
            await upstream.close()

    return asyncio.run(main())


def addresses(server: Server) -> Addresses:
    return Addresses(f"http://127.0.0.1:{server.port}", server.management)


@pytest.mark.parametrize("fields", [{"seed": 1}, LATE, {"steps": 0}])
def test_an_answer_is_the_server_s_own_whether_it_comes_soon_or_late(
    server: Server, fields: dict[str, Any]
) -> None:
    async def use(upstream: Upstream) -> tuple[int, Headers, bytes]:
        async with upstream.predict("diffusion", fields) as answer:
            return answer.status, answer.headers, await answer.read()

    status, headers, body = asking(addresses(server), use)
    with server.client() as client:
        plain = client.post("/predictions/diffusion", json=fields)
    assert (status, body) == (plain.status_code, plain.content)
    assert headers["content-type"] == plain.headers["content-type"]
    assert [headers.get(name) for name in ("X-Seed", "X-NFE", "X-Work")] == [
        plain.headers.get(name) for name in ("X-Seed", "X-NFE", "X-Work")
    ]


def test_who_leaves_before_the_answer_frees_its_place(server: Server) -> None:
    def cancelled() -> list[str]:
        lines = httpx.get(f"{server.metrics}/metrics").text.splitlines()
        return [line for line in lines if line.startswith("genserve_cancelled_total{")]

    async def use(upstream: Upstream) -> None:
        async def ask() -> None:
            async with upstream.predict("diffusion", LATE | {"num_samples": 16}) as answer:
                await answer.read()

        task = asyncio.ensure_future(ask())
        await asyncio.sleep(0.2)
        task.cancel()

    before = cancelled()
    asking(addresses(server), use)
    wait_until(lambda: cancelled() != before, True)


def test_a_model_that_is_not_there_and_a_server_that_is_away(server: Server) -> None:
    with pytest.raises(BadRequest, match="there is no such model") as missing:
        asking(addresses(server), lambda upstream: upstream.check("nothing"))
    assert (missing.value.status, "diffusion" in missing.value.allowed) == (404, True)
    asking(addresses(server), lambda upstream: upstream.check("diffusion"))
    nowhere = Addresses("http://127.0.0.1:9", "http://127.0.0.1:9")
    with pytest.raises(UpstreamError, match="does not answer") as away:
        asking(nowhere, lambda upstream: upstream.check("diffusion"))
    assert away.value.status == 503
