"""A gateway that is started before its server has the server as soon as it is there."""

import asyncio
import os
from pathlib import Path

import pytest
from stand_in import standing_in, version

from genserve.commands.gateway import command_line, options_of
from genserve.gateway.options import Limits
from genserve.gateway.upstream import Upstream, UpstreamError
from genserve.operate.api import Server
from genserve.operate.process import born, record


def test_a_server_that_is_started_later_has_its_model_store_and_its_own_management(tmp_path: Path) -> None:
    options = options_of(command_line(["--home", str(tmp_path), "--server-port", "9"]))
    assert (options.server.store, options.server.management) == (None, "http://127.0.0.1:10")
    ours = {"pid": os.getpid(), "born": born(os.getpid()), "port": 9, "store": "a store", "temporary": "b"}
    record(tmp_path, ours | {"management": "/a/socket"})
    assert options.server.store == Path("a store")
    assert options.server.management == "unix:/a/socket"
    record(tmp_path, ours | {"port": 7})
    assert options.server.store is None


def test_models_are_asked_for_where_the_server_is_now() -> None:
    servers = [Server("http://127.0.0.1:9", "http://127.0.0.1:9")]

    async def names(upstream: Upstream) -> list[str]:
        try:
            return sorted(await upstream.models())
        finally:
            await upstream.close()

    upstream = Upstream(lambda: servers[-1])
    with pytest.raises(UpstreamError):
        asyncio.run(names(upstream))
    listing = {"models": [{"modelName": "a", "modelUrl": "a.mar"}]}
    with standing_in({"GET /models": (200, listing), "GET /models/a/all": (200, [version()])}) as host:
        servers.append(Server(host.url, host.url))
        assert asyncio.run(names(upstream)) == ["a"]


@pytest.mark.parametrize("name", ["requests", "work", "open"])
def test_a_limit_below_zero_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 0, got -1"):
        Limits(**{name: -1})
