"""What the work makes of programs that are killed and of servers that are away; programs are played here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genserve.gateway.jobs import work as module
from genserve.gateway.jobs.record import Job, Jobs, State
from genserve.gateway.jobs.work import TRIES, Work
from genserve.gateway.options import Options
from genserve.operate.api import ManagementError

Played = Callable[..., Jobs]


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    """Do a job whose programs end with these codes and whose server answers with these errors first."""

    def play(codes: list[int], *away: ManagementError, stop: bool = False) -> Jobs:
        jobs = Jobs(tmp_path / "runs")
        jobs.add(Job(id="a", program="ngram", serve_as="mine"), {})
        errors = list(away)

        def once(self: Work, job: Job, locks: tuple[int, ...], words: list[object]) -> int:
            jobs.say("a", f"I am {words[0]}")
            if stop:
                jobs.cancel("a")
            return codes.pop(0)

        def serve(*_: Any) -> None:
            if errors:
                raise errors.pop(0)

        monkeypatch.setattr(Work, "_once", once)
        monkeypatch.setattr(Work, "_look", lambda self, seconds: None)
        monkeypatch.setattr(module, "successor", lambda server, name: ("2.0", "1.0"))
        monkeypatch.setattr(module, "serve", serve)
        Work(Options(runs=tmp_path / "runs"), jobs).run("a")
        return jobs

    return play


def log_of(jobs: Jobs) -> str:
    return (jobs.directory("a") / "log.txt").read_text()


def test_a_program_that_is_killed_is_started_again_and_a_server_that_is_away_is_waited_for(
    played: Played,
) -> None:
    jobs = played([-9, -15, 0, -9, 0], ManagementError("away", 503), ManagementError("changes", 409))
    job = jobs.get("a")
    assert (job.state, job.version, job.before) == (State.DONE, "2.0", "1.0")
    assert "train was ended by SIGKILL" in log_of(jobs)
    assert "trying again: away" in log_of(jobs)


def test_a_program_that_is_killed_again_and_again_fails_the_job(played: Played) -> None:
    job = played([-9] * TRIES).get("a")
    assert (job.state, job.phase) == (State.FAILED, State.RUNNING)
    assert f"killed {TRIES} times" in job.error


def test_a_program_that_fails_is_not_started_again(played: Played) -> None:
    job = played([1]).get("a")
    assert (job.state, job.error) == (State.FAILED, "I am train")


def test_a_refusal_of_the_server_fails_the_job_which_can_go_on_from_there(played: Played) -> None:
    jobs = played([0, 0], ManagementError("no room", 400))
    job = jobs.get("a")
    assert (job.state, job.phase, job.error) == (State.FAILED, State.REGISTERING, "no room")
    assert jobs.resume("a").phase == State.EXPORTING  # its version may be another job's by now


def test_a_job_that_is_to_stop_is_neither_packed_nor_registered(played: Played) -> None:
    for code in (0, 1, -15):
        jobs = played([code], stop=True)
        assert jobs.get("a").state == State.CANCELLED
        assert "archive" not in log_of(jobs)
        for path in jobs.directory("a").iterdir():
            path.unlink()
        jobs.directory("a").rmdir()
