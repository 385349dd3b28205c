"""Who may do what with jobs on the page: its events are posted plainly, by a client that is no browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from real_gateway import ADMIN, CLIENT
from starlette.testclient import TestClient

from genserve.gateway.app import create_app
from genserve.gateway.jobs.queue import Queue
from genserve.gateway.jobs.record import Job, Jobs, State
from genserve.gateway.options import Options, Tokens
from genserve.gateway.page.train import FIRST

pytestmark = pytest.mark.filterwarnings("ignore")  # Gradio's own, about pandas and loops of events
FORM = [FIRST, 1, 10, 2e-3, ""]  # recipe, epochs, batches, learning rate, name to serve as
SESSION = "a session that both know"
REFUSAL = "needs the admin token"


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(tmp_path / "runs")


@pytest.fixture
def client(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """Return a client of a gateway that gives jobs no turns."""
    monkeypatch.setattr(Queue, "start", lambda self: None)
    monkeypatch.setattr(Queue, "put", lambda self, job: None)
    options = Options(runs=jobs.folder, tokens=Tokens(client=CLIENT, admin=ADMIN))
    with TestClient(create_app(options), "http://127.0.0.1:8090") as client:
        yield client


def sent(client: TestClient, token: str, event: str, *values: object) -> str:
    """Send an event of the page and return what the page would show."""
    headers = {"Authorization": f"Bearer {token}"}
    address = f"/page/gradio_api/call/{event}"
    body = {"data": values, "session_hash": SESSION}
    answer = client.post(address, json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return client.get(f"{address}/{answer.json()['event_id']}", headers=headers).text


def test_jobs_are_started_stopped_and_resumed_from_the_page_by_who_has_the_admin_token_alone(
    client: TestClient, jobs: Jobs
) -> None:
    assert REFUSAL in sent(client, CLIENT, "start", *FORM)
    assert jobs.all() == []
    assert "waits for its turn" in sent(client, ADMIN, "start", *FORM)
    (job,) = jobs.all()
    # the session's choices, which Gradio holds an event to, are the administrator's now
    assert job.id in sent(client, ADMIN, "refresh", None)
    assert REFUSAL in sent(client, CLIENT, "cancel", job.id)
    assert jobs.get(job.id).state == State.QUEUED
    assert REFUSAL in sent(client, CLIENT, "follow", job.id)
    assert "stops at its next" in sent(client, ADMIN, "cancel", job.id)
    assert jobs.get(job.id).state == State.CANCELLED
    assert REFUSAL in sent(client, CLIENT, "resume", job.id)
    assert jobs.get(job.id).state == State.CANCELLED
    assert job.id not in sent(client, CLIENT, "refresh", None)


def test_without_the_admin_token_no_job_is_shown(client: TestClient, jobs: Jobs) -> None:
    jobs.add(Job(id="mine", program="ngram"), {})
    assert "mine" not in sent(client, CLIENT, "refresh", None)
    assert "mine" in sent(client, ADMIN, "refresh", None)
