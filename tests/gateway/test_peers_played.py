"""Requests of other servers' clients, with a server that is played: what they cost, and who hangs up."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.testclient import TestClient
from starlette.types import Message, Scope

from genserve.gateway.app import create_app
from genserve.gateway.options import Limits, Options
from genserve.gateway.page import page
from genserve.gateway.upstream import Answer

WORK = 60  # of each answer that draws


class Played:
    """A server with one model, whose answers name their work; the tests' clients never see another."""

    def __init__(self) -> None:
        self.asked_for: list[Mapping[str, Any]] = []
        self.left = 0
        self.forever = False
        self.strange: dict[str, tuple[int, bytes]] = {}  # models that are not ours, and what they answer

    async def models(self) -> list[str]:
        return ["diffusion", *self.strange]

    async def check(self, name: str) -> None:
        assert name == "diffusion"

    async def close(self) -> None:
        pass

    @asynccontextmanager
    async def predict(self, name: str, fields: Mapping[str, Any]) -> AsyncIterator[Answer]:
        self.asked_for.append(fields)
        drawn = "task" not in fields
        try:
            if self.forever:
                await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.left += 1
            raise

        async def body() -> AsyncIterator[bytes]:
            if drawn and fields.get("format") == "json":
                yield b'{"images": [{"png": ""}], "settings": {}, "seed": 1, "nfe": 1}'
            elif name in self.strange:
                yield self.strange[name][1]
            else:
                yield b"png" if drawn else b'{"shape": [1, 28, 28]}'

        status = self.strange.get(name, (200, b""))[0]
        yield Answer(status, Headers({"X-Work": str(WORK)} if drawn else {}), body())


@pytest.fixture
def server() -> Played:
    return Played()


@pytest.fixture
def app(server: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    monkeypatch.setattr(page, "mount", lambda app, gateway: None)  # gradio leaves loops of events open
    options = Options(
        limits=Limits(requests=0, work=100, open=0), runs=tmp_path / "runs", outputs=tmp_path / "outputs"
    )
    app = create_app(options)
    app.state.gateway.upstream = server
    return app


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    return TestClient(app, "http://127.0.0.1:8090")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/generate", None),
        ("GET", "/diffusion/generate?image_size=28", None),
        ("POST", "/generate", {"model_type": "diffusion", "num_samples": 1}),
        ("POST", "/generate_image", {"model_type": "diffusion"}),
        ("POST", "/generate/diffusion", {}),
        ("POST", "/generate/diffusion", {"return_format": "png"}),
    ],
)
def test_who_has_spent_a_minute_s_work_on_another_server_s_route_waits(
    client: TestClient, method: str, path: str, body: Any
) -> None:
    answers = [client.request(method, path, json=body) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429], answers[0].text
    assert [answer.headers.get("X-Work") for answer in answers] == [str(WORK), str(WORK), None]
    assert "work of 100 a minute" in answers[2].json()["message"]
    assert client.get("/generate").status_code == 429  # the work is the client's, not the route's


def test_what_draws_nothing_costs_no_work(client: TestClient) -> None:
    assert {client.get("/models/info").status_code for _ in range(9)} == {200}


def test_a_model_that_cannot_be_described_hides_no_other_one(client: TestClient, server: Played) -> None:
    server.strange = {"foreign": (200, b"hello"), "loading": (503, b'{"message": "no worker"}')}
    answer = client.get("/models/info")
    assert (answer.status_code, answer.json()["models"]["diffusion"]) == (200, {"shape": [1, 28, 28]})
    assert answer.json()["models"]["foreign"] == {"error": "it does not describe itself"}
    assert "no worker" in answer.json()["models"]["loading"]["error"]


def test_who_hangs_up_is_let_go_and_counted_and_nothing_failed(
    app: FastAPI, server: Played, caplog: pytest.LogCaptureFixture
) -> None:
    server.forever = True
    coming: list[Message] = [{"type": "http.request", "body": b""}, {"type": "http.disconnect"}]
    sent: list[Message] = []

    async def receive() -> Message:
        return coming.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {
        "type": "http", "method": "GET", "path": "/generate", "raw_path": b"/generate", "root_path": "",
        "query_string": b"", "headers": [(b"host", b"127.0.0.1")], "client": ("127.0.0.1", 1),
        "scheme": "http", "http_version": "1.1", "server": ("127.0.0.1", 80),
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    assert (sent, server.left) == ([], 1)
    assert app.state.gateway.metrics.hang_ups._value.get() == 1
    assert not caplog.records
