"""`POST /train` as clients of other servers send it: the same job as `POST /jobs`, waited for or not."""

import asyncio
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from starlette.types import Message, Scope

from genserve.gateway.app import create_app
from genserve.gateway.jobs.bounds import BATCHES_MAX, EPOCHS_MAX
from genserve.gateway.jobs.queue import Queue
from genserve.gateway.jobs.record import Job, Jobs, State
from genserve.gateway.jobs.settings import configurations
from genserve.gateway.options import Options, Tokens
from genserve.gateway.page import page
from genserve.gateway.peers import training
from genserve.gateway.peers.asking import FAMILIES

BODY: dict[str, Any] = {"model_type": "diffusion", "epochs": 2, "max_batches_per_epoch": 5}
TOKENS = Tokens(client="client-token-of-tests", admin="admin-token-of-tests")


class Ends:
    """Ends jobs that are put into the queue, as a turn of it would."""

    def __init__(self) -> None:
        self.state = State.QUEUED
        self.put: list[str] = []

    def __call__(self, queue: Queue, job: Job) -> None:
        self.put.append(job.id)
        threading.Thread(target=self.end, args=(queue.jobs, job.id)).start()

    def end(self, jobs: Jobs, id: str) -> None:
        time.sleep(0.05)
        if self.state == State.CANCELLED:
            jobs.cancel(id)
        elif self.state == State.FAILED:
            jobs.begin(id)
            jobs.fail(id, "loss nan at step 3")
        elif self.state == State.DONE:
            jobs.begin(id)
            jobs.advance(id, State.DONE)


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Ends:
    ends = Ends()
    monkeypatch.setattr(page, "mount", lambda app, gateway: None)  # gradio leaves loops of events open
    monkeypatch.setattr(Queue, "start", lambda self: None)
    monkeypatch.setattr(Queue, "put", lambda self, job: ends(self, job))
    monkeypatch.setattr(training, "LOOK_S", 0.01)
    return ends


@pytest.fixture
def app(ends: Ends, tmp_path: Path) -> FastAPI:
    return create_app(Options(runs=tmp_path / "runs", data=tmp_path))


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    return TestClient(app, "http://127.0.0.1:8090")


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(tmp_path / "runs")


def settings_of(jobs: Jobs, id: str) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((jobs.directory(id) / "settings.json").read_text())
    return settings


def test_a_job_is_taken_and_its_address_told(client: TestClient, jobs: Jobs, ends: Ends) -> None:
    answer = client.post("/train", json=BODY)
    body = answer.json()
    assert (answer.status_code, body["state"], body["url"]) == (202, "queued", f"/jobs/{body['id']}")
    assert answer.headers["Location"] == body["url"]
    assert body["message"]
    assert client.get(body["url"]).json()["id"] == body["id"]
    assert ends.put == [body["id"]]
    settings = settings_of(jobs, body["id"])
    assert (settings["epochs"], settings["max_batches_per_epoch"]) == (2, 5)


@pytest.mark.parametrize("epochs", [1, 2, 10])
@pytest.mark.parametrize("model_type", training.RECIPES)
def test_every_model_that_other_servers_have_can_be_trained(
    client: TestClient, jobs: Jobs, model_type: str, epochs: int
) -> None:
    answer = client.post("/train", json={"model_type": model_type, "epochs": epochs})
    assert answer.status_code == 202, answer.text
    job = jobs.get(answer.json()["id"])
    assert (job.serve_as, job.config in configurations(Options())) == (None, True)
    settings = settings_of(jobs, job.id)
    assert (settings["epochs"], settings["max_batches_per_epoch"]) == (epochs, 100)


def test_the_models_are_those_of_the_routes_that_draw() -> None:
    assert training.RECIPES.keys() == FAMILIES.keys()


@pytest.mark.parametrize("how_to_wait", ["query", "body"])
@pytest.mark.parametrize(
    ("state", "status", "words"),
    [
        (State.DONE, 200, "is trained"), (State.FAILED, 500, "loss nan at step 3"),
        (State.CANCELLED, 409, "was cancelled"),
    ],
)  # fmt: skip
def test_who_waits_is_answered_when_the_job_has_ended(
    client: TestClient, ends: Ends, how_to_wait: str, state: State, status: int, words: str
) -> None:
    ends.state = state
    if how_to_wait == "query":
        answer = client.post("/train?wait=true", json=BODY)
    else:
        answer = client.post("/train", json=BODY | {"wait": True})
    body = answer.json()
    assert (answer.status_code, words in body["message"]) == (status, True), body
    assert answer.headers["Location"] == f"/jobs/{ends.put[0]}"
    if status == 200:
        assert (body["id"], body["state"], body["seconds_left"]) == (ends.put[0], "done", 0.0)
    else:
        assert body.keys() == {"error", "message"}


def test_who_waits_and_hangs_up_is_let_go_and_the_job_goes_on(
    app: FastAPI, jobs: Jobs, ends: Ends, caplog: pytest.LogCaptureFixture
) -> None:
    content = json.dumps(BODY | {"wait": True}).encode()
    coming: list[Message] = [{"type": "http.request", "body": content}]
    sent: list[Message] = []

    async def receive() -> Message:
        if coming:
            return coming.pop(0)
        while not ends.put:
            await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {
        "type": "http", "method": "POST", "path": "/train", "raw_path": b"/train", "root_path": "",
        "query_string": b"", "headers": [(b"host", b"127.0.0.1")], "client": ("127.0.0.1", 1),
        "scheme": "http", "http_version": "1.1", "server": ("127.0.0.1", 80),
    }  # fmt: skip
    asyncio.run(asyncio.wait_for(app(scope, receive, send), 60))
    assert sent == []
    assert not caplog.records
    assert app.state.gateway.metrics.hang_ups._value.get() == 1
    assert [job.state for job in jobs.all()] == [State.QUEUED]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/train", {}, "model_type"),
        ("/train", {"model_type": "nothing"}, "model_type"),
        ("/train", {"model_type": 3}, "model_type"),
        ("/train", BODY | {"epochs": -1}, "epochs"),
        ("/train", BODY | {"epochs": 0}, "epochs"),
        ("/train", BODY | {"epochs": 1.5}, "epochs"),
        ("/train", BODY | {"epochs": True}, "epochs"),
        ("/train", BODY | {"epochs": "2"}, "epochs"),
        ("/train", BODY | {"epochs": EPOCHS_MAX + 1}, "epochs"),
        ("/train", BODY | {"max_batches_per_epoch": 0}, "max_batches_per_epoch"),
        ("/train", BODY | {"max_batches_per_epoch": BATCHES_MAX + 1}, "max_batches_per_epoch"),
        ("/train", BODY | {"learning_rate": 1}, "learning_rate"),
        ("/train", BODY | {"wait": "perhaps"}, "wait"),
        ("/train?wait=perhaps", BODY, "wait"),
        ("/train", [], "body"),
    ],
)
def test_what_is_wrong_is_named_and_no_job_is_kept(
    client: TestClient, jobs: Jobs, path: str, body: Any, field: str
) -> None:
    answer = client.post(path, json=body)
    assert (answer.status_code, answer.json()["field"]) == (400, field), answer.text
    assert jobs.all() == []


def test_training_is_the_administrator_s_as_jobs_are(tmp_path: Path, jobs: Jobs, ends: Ends) -> None:
    with_tokens = create_app(Options(runs=tmp_path / "runs", data=tmp_path, tokens=TOKENS))
    client = TestClient(with_tokens, "http://127.0.0.1:8090")
    for token, status in (("", 401), (TOKENS.client, 403), (TOKENS.admin, 202)):
        headers = {"Authorization": f"Bearer {token}"}
        for path, body in (("/train", b"{"), ("/jobs", b"{")):
            wrong = client.post(path, content=body, headers=headers).status_code
            assert wrong == (400 if status == 202 else status)
        assert client.post("/train", json=BODY, headers=headers).status_code == status
        assert len(jobs.all()) == (status == 202)
