"""Turns: in order, one at a time, by data and not by code; what a kill took out of the queue comes back."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from huey.registry import Message
from real_server import wait_until

from genserve.gateway.jobs.queue import Lines, Queue
from genserve.gateway.jobs.record import Job, State, taken
from genserve.gateway.options import Options

SECONDS = 120


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Queue]]:
    """Make queues of one folder whose turns are recorded, and close them."""
    queues: list[Queue] = []

    def make(run: Callable[[str], None]) -> Queue:
        queue = Queue(Options(runs=tmp_path / "runs"))
        monkeypatch.setattr(queue.work, "run", run)
        queues.append(queue)
        return queue

    yield make
    for queue in queues:
        queue.close()


def added(queue: Queue, id: str, state: State = State.QUEUED) -> Job:
    job = queue.jobs.add(Job(id=id, program="diffusion"), {})
    return queue.jobs.begin(id) if state != State.QUEUED else job


def test_jobs_have_their_turns_in_order_and_one_at_a_time(made: Callable[..., Queue]) -> None:
    turns: list[str] = []
    gate, first = threading.Event(), threading.Event()

    def run(id: str) -> None:
        if queue.jobs.get(id).state == State.DONE:
            return  # it was taken for lost before it was in the queue, and has had its turn
        turns.append(id)
        first.set()
        assert gate.wait(SECONDS)
        queue.jobs.advance(id, State.DONE)

    queue = made(run)
    for id in ("a", "b", "c"):
        queue.put(added(queue, id))
    assert first.wait(SECONDS)
    assert turns == ["a"]
    gate.set()
    wait_until(lambda: turns, ["a", "b", "c"], SECONDS)


def test_a_job_that_the_queue_has_lost_comes_back_unless_another_gateway_has_it_in_hand(
    made: Callable[..., Queue], tmp_path: Path
) -> None:
    turns: list[str] = []
    queue = made(lambda id: turns.append(id))
    for id, state in (("waits", State.QUEUED), ("cut-off", State.RUNNING), ("elsewhere", State.RUNNING)):
        added(queue, id, state)
    queue.jobs.cancel(added(queue, "cancelled").id)
    assert taken(tmp_path / "runs" / "elsewhere" / ".lock") is not None
    queue.start()
    wait_until(lambda: sorted(turns), ["cut-off", "waits"], SECONDS)


def test_a_fault_of_the_work_ends_the_job_and_the_next_one_has_its_turn(made: Callable[..., Queue]) -> None:
    def run(id: str) -> None:
        if id == "a":
            raise RuntimeError("a fault")
        queue.jobs.advance(id, State.DONE)

    queue = made(run)
    for id in ("a", "b"):
        queue.put(added(queue, id))
    wait_until(lambda: queue.jobs.get("b").state, State.DONE, SECONDS)
    assert queue.jobs.get("a").state == State.FAILED
    assert "its log says why (RuntimeError)" in queue.jobs.get("a").error


def test_a_job_that_the_queue_cannot_take_now_comes_in_later(
    made: Callable[..., Queue], monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[str] = []
    queue = made(lambda id: turns.append(id))
    queue.start()
    with monkeypatch.context() as patched:
        patched.setattr(queue._huey, "enqueue", _locked)
        queue.put(added(queue, "a"))
    queue.recover()
    wait_until(lambda: set(turns), {"a"}, SECONDS)


def _locked(task: object) -> None:
    raise sqlite3.OperationalError("database is locked")


def test_tasks_are_data() -> None:
    message = Message("id", "job", args=("a",), kwargs={}, expires_resolved=datetime(2026, 1, 1))
    line = Lines().serialize(message)
    assert line.startswith(b'["id", "job"')
    assert Lines().deserialize(line) == message._replace(args=["a"])


def test_a_folder_that_cannot_be_written_is_an_error_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(OSError, match="runs"):
        Queue(Options(runs=tmp_path / "runs")).start()
