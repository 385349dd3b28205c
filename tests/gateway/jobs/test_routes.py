"""Routes of jobs without a server and without turns: answers, errors in the one form, hostile requests."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_jobs import request

from genserve.gateway.app import create_app
from genserve.gateway.jobs.queue import Queue
from genserve.gateway.options import Options, Tokens
from genserve.gateway.page import page


@pytest.fixture(autouse=True)
def _no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "mount", lambda app, gateway: None)  # gradio leaves loops of events open


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Queue:
    """Return the queue of the client's gateway, which gives no turns."""
    monkeypatch.setattr(Queue, "start", lambda self: None)
    monkeypatch.setattr(Queue, "put", lambda self, job: None)
    return Queue(Options(runs=tmp_path / "runs", data=tmp_path))


@pytest.fixture
def client(queue: Queue) -> Iterator[TestClient]:
    with TestClient(create_app(queue.options), base_url="http://127.0.0.1") as client:
        yield client


def test_a_job_is_taken_listed_followed_and_cancelled(client: TestClient, queue: Queue) -> None:
    answer = client.post("/jobs", json=request("mine"))
    job = answer.json()
    assert (answer.status_code, job["state"], job["serve_as"]) == (202, "queued", "mine")
    assert answer.headers["Location"] == f"/jobs/{job['id']}"
    assert job["id"].startswith("diffusion-digits-")
    settings = json.loads((queue.jobs.directory(job["id"]) / "settings.json").read_text())
    assert (settings["name"], settings["batch_size"], settings["lr"]) == (job["id"], 10, 2e-3)
    assert client.get("/jobs").json() == {"jobs": [client.get(f"/jobs/{job['id']}").json()]}
    for name in ("samples.png", "samples.txt", "settings.json", "job.json"):
        assert client.get(f"/jobs/{job['id']}/{name}").status_code == 404
    assert client.get(f"/jobs/{job['id']}/log").text == ""
    cancelled = client.delete(f"/jobs/{job['id']}")
    assert (cancelled.status_code, cancelled.json()["state"]) == (202, "cancelled")
    assert client.get(f"/jobs/{job['id']}/events").text == (
        'event: state\ndata: {"state": "cancelled", "error": ""}\n\n'
    )
    assert client.post(f"/jobs/{job['id']}/resume").json()["state"] == "queued"
    assert client.post(f"/jobs/{job['id']}/resume").status_code == 409


def test_a_run_is_described_by_its_files_and_its_metrics_are_events(client: TestClient, queue: Queue) -> None:
    id = client.post("/jobs", json=request()).json()["id"]
    directory = queue.jobs.directory(id)
    queue.jobs.begin(id)
    (directory / "config.json").write_text('{"steps": 100}')
    lines = ['{"step": 50, "loss": 0.5, "images_per_s": 20.0}', '{"step": 60, "other": NaN}', '{"step": 7']
    (directory / "metrics.jsonl").write_text("\n".join(lines))
    (directory / "samples.png").write_bytes(b"png")
    job = client.get(f"/jobs/{id}").json()
    assert (job["step"], job["steps"], job["loss"], job["images_per_s"]) == (60, 100, 0.5, 20.0)
    assert job["seconds_left"] == 40 * 10 / 20
    assert job["samples"] == [f"/jobs/{id}/samples.png"]
    assert client.get(job["samples"][0]).headers["content-type"] == "image/png"
    queue.jobs.fail(id, "no disk")
    events = client.get(f"/jobs/{id}/events").text.split("\n\n")
    assert events[0] == f"event: metrics\nid: 50\ndata: {lines[0]}"
    assert events[2] == 'event: state\ndata: {"state": "failed", "error": "no disk"}'
    late = client.get(f"/jobs/{id}/events", headers={"Last-Event-ID": "50"}).text.split("\n\n")
    assert late == events[1:]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "program"),
        ({"program": "bitcoin"}, "program"),
        ({"program": 3}, "program"),
        ({"program": "diffusion", "config": "x"}, "config"),
        ({"program": "diffusion", "shell": "x"}, "shell"),
        ({"program": "diffusion", "overrides": {"epochs": 0}}, "overrides.epochs"),
        ({"program": "diffusion", "overrides": [1]}, "overrides"),
        ({"program": "diffusion", "serve_as": "../x"}, "serve_as"),
        ({"program": "diffusion", "serve_as": "a b"}, "serve_as"),
        ({"program": "diffusion", "serve_as": "x" * 65}, "serve_as"),
        ({"program": "diffusion", "serve_as": ""}, "serve_as"),
        ([1], "body"),
    ],
)
def test_a_wrong_body_is_refused_by_the_name_of_its_field_and_nothing_is_kept(
    client: TestClient, queue: Queue, body: Any, field: str
) -> None:
    answer = client.post("/jobs", json=body)
    assert (answer.status_code, answer.json()["field"]) == (400, field)
    assert queue.jobs.all() == []


HOSTILE = [
    b"", b"null", b"[]", b"\xff\xfe", b"{", b'{"program": NaN}', b'{"a":' * 20_000, b"[" * 60_000,
    b'{"program": "diffusion", "overrides": {"epochs": ' + b"9" * 5000 + b"}}",
    b'{"program": "diffusion", "overrides": {"lr": 1e999}}',
    b'{"program": "diffusion", "overrides": {"\\ud800": 1}}',
    b'{"program": "\\ud800"}', b'{"program": "diffusion", "overrides": {"data.root": "\\u0000"}}',
    b'{"program": "diffusion", "config": "\\u0000"}', b'{"": ""}', b"x" * 70_000,
    b'{"program": "diffusion", "overrides": {"start_from": {"a": []}}}',
    b'{"program": "diffusion", "overrides": {"data": {"root": {}}}}',
    b'{"program": "diffusion", "overrides": {"data": null}}',
    b'{"program": "diffusion", "overrides": {"net": []}}',
    b'{"program": "diffusion", "overrides": {"....": []}}',
]  # fmt: skip


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_body_is_a_client_s_mistake(client: TestClient, body: bytes) -> None:
    for path in ("/jobs", "/train", "/admin/models"):
        answer = client.post(path, content=body)
        assert 400 <= answer.status_code < 500, answer.text
        assert answer.json()["error"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(
    ["net", "data", "lr", "betas", "augment", "epochs", "data.root", "teacher", "net.patch"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(overrides=st.dictionaries(KEYS | st.text(max_size=6), VALUES, max_size=3))
def test_no_overrides_are_our_fault(client: TestClient, queue: Queue, overrides: dict[str, Any]) -> None:
    answer = client.post("/jobs", content=json.dumps({"program": "diffusion", "overrides": overrides}))
    assert answer.status_code in (202, 400, 429)
    for job in queue.jobs.open():
        queue.jobs.cancel(job.id)


@pytest.mark.parametrize("id", ["nothing", "..%2f..%2fetc", "%00", "a%20b", "%ed%a0%80", "x" * 3000, ".jobs"])
def test_a_job_that_there_is_not_is_404_on_every_route(client: TestClient, id: str) -> None:
    for method, path in (
        ("GET", ""), ("DELETE", ""), ("POST", "/resume"), ("GET", "/events"), ("GET", "/log"),
        ("GET", "/samples.png"),
    ):  # fmt: skip
        answer = client.request(method, f"/jobs/{id}{path}")
        assert answer.status_code == 404, (method, path)
        assert answer.json()["error"]


def test_too_many_jobs_wait(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genserve.gateway.jobs.routes.OPEN_MAX", 1)
    assert client.post("/jobs", json=request()).status_code == 202
    refused = client.post("/jobs", json=request())
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "60")


def test_a_folder_that_cannot_be_written_is_not_our_fault(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with TestClient(create_app(Options(runs=tmp_path / "runs")), base_url="http://127.0.0.1") as client:
        answer = client.post("/jobs", json=request())
        assert (answer.status_code, "no job can be kept" in answer.json()["error"]) == (503, True)
        assert client.get("/jobs").json() == {"jobs": []}


def test_jobs_are_counted_by_state(client: TestClient) -> None:
    client.post("/jobs", json=request())
    lines = client.get("/metrics").text.splitlines()
    assert 'genserve_gateway_jobs{state="queued"} 1.0' in lines
    assert 'genserve_gateway_jobs{state="done"} 0.0' in lines


def test_jobs_are_the_administrator_s(tmp_path: Path) -> None:
    tokens = Tokens(client="client-token-of-tests", admin="admin-token-of-tests")
    with TestClient(create_app(Options(runs=tmp_path / "runs", tokens=tokens))) as client:
        for path in ("/jobs", "/jobs/x", "/jobs/x/events", "/admin/models"):
            assert client.get(path).status_code == 401
            bearer = {"Authorization": f"Bearer {tokens.client}"}
            assert client.get(path, headers=bearer).status_code == 403
        bearer = {"Authorization": f"Bearer {tokens.admin}"}
        assert client.get("/jobs", headers=bearer).json() == {"jobs": []}


def test_programs_and_configurations_are_listed(client: TestClient) -> None:
    listing = client.get("/jobs/configs").json()
    assert "diffusion" in listing["programs"]
    assert "diffusion-digits" in listing["configs"]
