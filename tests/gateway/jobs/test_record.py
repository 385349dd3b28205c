"""States of a job: which follows which, who may change it, and what a kill leaves."""

import json
import os
from pathlib import Path

import pytest

from genserve.gateway.jobs.record import Job, Jobs, State, taken
from genserve.learning.checkpoint import STOP
from genserve.serving.fields import BadRequest


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(tmp_path / "runs")


def added(jobs: Jobs, id: str = "a", serve_as: str | None = None) -> Job:
    return jobs.add(Job(id=id, program="diffusion", serve_as=serve_as), {"name": id})


def test_a_job_goes_from_phase_to_phase_and_goes_on_with_the_one_that_was_cut_off(jobs: Jobs) -> None:
    added(jobs)
    assert jobs.begin("a").state == State.RUNNING
    assert jobs.advance("a", State.EXPORTING).state == State.EXPORTING
    assert jobs.begin("a").state == State.EXPORTING  # after a kill of the gateway
    assert jobs.advance("a", State.REGISTERING, version="2.0", before="1.0").version == "2.0"
    done = jobs.advance("a", State.DONE)
    assert (done.state, done.version, done.ended > 0) == (State.DONE, "2.0", True)
    assert jobs.begin("a") == jobs.fail("a", "late") == done == jobs.get("a")


def test_a_job_that_waits_is_cancelled_at_once_and_one_that_trains_when_its_program_has_ended(
    jobs: Jobs,
) -> None:
    added(jobs)
    assert jobs.cancel("a").state == State.CANCELLED
    assert jobs.begin("a").state == State.CANCELLED  # its turn comes all the same
    assert jobs.resume("a").state == State.QUEUED
    jobs.begin("a")
    assert jobs.cancel("a").state == jobs.cancel("a").state == State.RUNNING
    assert (jobs.directory("a") / STOP).exists()
    assert jobs.advance("a", State.DONE).state == State.CANCELLED
    assert jobs.cancel("a").state == State.CANCELLED
    resumed = jobs.resume("a")
    assert (resumed.state, resumed.phase, jobs.stops("a")) == (State.QUEUED, State.RUNNING, None)


def test_a_job_that_was_to_stop_before_a_kill_stops_after_it(jobs: Jobs) -> None:
    added(jobs)
    jobs.begin("a")
    jobs.cancel("a")
    assert Jobs(jobs.folder).begin("a").state == State.CANCELLED


def test_what_is_registered_done_or_goes_on_is_not_changed(jobs: Jobs) -> None:
    added(jobs)
    with pytest.raises(BadRequest, match="the job is queued") as refusal:
        jobs.resume("a")
    assert refusal.value.status == 409
    jobs.begin("a")
    jobs.advance("a", State.REGISTERING)
    with pytest.raises(BadRequest, match="registering: it cannot be cancelled"):
        jobs.cancel("a")
    jobs.advance("a", State.DONE)
    for change in (jobs.resume, jobs.cancel):
        with pytest.raises(BadRequest, match="the job is done"):
            change("a")


def test_a_failed_job_says_why_and_may_go_on(jobs: Jobs) -> None:
    added(jobs)
    jobs.begin("a")
    assert jobs.fail("a", "no disk").error == "no disk"
    assert jobs.resume("a").error == ""


def test_jobs_are_listed_the_newest_first_and_other_folders_are_passed_over(jobs: Jobs) -> None:
    assert jobs.all() == []
    for id in ("a", "b", "c"):
        added(jobs, id)
    for name, text in (("by-hand", None), ("torn", '{"id": '), ("other", "[]"), ("older", '{"id": "x"}')):
        (jobs.folder / name).mkdir()
        if text is not None:
            (jobs.folder / name / "job.json").write_text(text)
    assert [job.id for job in jobs.all()] == ["c", "b", "a"]
    jobs.cancel("b")
    assert [job.id for job in jobs.open()] == ["a", "c"]


@pytest.mark.parametrize("id", ["b", "../a", "", ".", "a/b", "a\0", "\ud800", "x" * 5000, ".jobs"])
def test_there_is_no_job_of_another_name(jobs: Jobs, id: str) -> None:
    added(jobs)
    with pytest.raises(BadRequest, match="there is no job") as refusal:
        jobs.get(id)
    assert refusal.value.status == 404
    json.loads(refusal.value.body())


def test_a_lock_is_one_process_s_or_one_thread_s(tmp_path: Path) -> None:
    for _ in range(2):
        descriptor = taken(tmp_path / "lock")
        assert descriptor is not None
        assert taken(tmp_path / "lock") is None
        os.close(descriptor)
