"""Several workers of a continuous model: no request hangs, none is lost but with a worker that is killed.

The host is small_host's model of TorchServe's queue; tests/server/test_workers.py has the real one.
"""

import random
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from crew_process import Process
from small_host import DIED, Job, SmallHost, wait_for

from genserve.crew import Asked, Crew, State

PATIENCE_S = 8.0  # far more than a request takes, and far less than for ever
LONGEST_S = 0.08


@pytest.fixture
def host() -> Iterator[SmallHost]:
    with tempfile.TemporaryDirectory() as folder, SmallHost(Path(folder)) as host:
        yield host


class Clients:
    """Closed-loop clients: each sends its next request when it has an answer."""

    def __init__(self, host: SmallHost, n: int) -> None:
        self.jobs: list[Job] = []
        self.errors: list[BaseException] = []
        self._host, self._over = host, threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(k,)) for k in range(n)]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        assert not self.errors, self.errors

    def _run(self, seed: int) -> None:
        dice = random.Random(seed)
        try:
            while not self._over.is_set():
                self.jobs.append(self._host.ask(dice.uniform(0, LONGEST_S), PATIENCE_S))
        except BaseException as error:  # shown in the test's own thread
            self.errors.append(error)

    @property
    def failed(self) -> list[Job]:
        return [job for job in self.jobs if job.status == DIED]


def start(host: SmallHost, n: int) -> list[int]:
    """Start n more workers; return their numbers once all are in the table."""
    numbers = [host.start() for _ in range(n)]
    wait_for(lambda: set(numbers) <= {member.worker for member in host.members()})
    return numbers


def retire(host: SmallHost, numbers: list[int]) -> None:
    """Retire workers, and stop them once they are."""
    crew = Crew(host.table)
    crew.ask(numbers, Asked.RETIRE)
    crew.close()
    states = {State.RETIRED}
    wait_for(lambda: {m.state for m in host.members() if m.worker in numbers} == states)
    for number in numbers:
        host.kill(number)


def settled(host: SmallHost) -> bool:
    """Return whether one worker waits in the queue and all others sit."""
    states = sorted(member.state for member in host.members())
    return states == [State.OPEN] + [State.SITS] * (len(states) - 1)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_an_idle_model_has_one_porter_and_answers_a_newcomer_at_once(host: SmallHost, n: int) -> None:
    start(host, n)
    wait_for(lambda: settled(host))
    for _ in range(5):
        began = time.monotonic()
        assert host.ask(0.0, PATIENCE_S).status == 200
        assert time.monotonic() - began < 1
        wait_for(lambda: settled(host))


def test_all_workers_get_work(host: SmallHost) -> None:
    start(host, 3)
    with Clients(host, 12) as clients:
        busy: set[int] = set()

        def all_were_busy() -> bool:
            busy.update(member.worker for member in host.members() if member.state is State.BUSY)
            return len(busy) == 3

        wait_for(all_were_busy)
    assert not clients.failed


def test_nothing_is_lost_when_workers_join_and_retire(host: SmallHost) -> None:
    numbers = start(host, 1)
    with Clients(host, 12) as clients:
        numbers += start(host, 3)
        time.sleep(0.3)
        retire(host, numbers[2:])
        retire(host, [numbers[0]])  # not only the newest
        time.sleep(0.3)
    assert not clients.failed
    assert len(clients.jobs) > 50
    wait_for(lambda: settled(host))


def test_a_worker_that_is_killed_takes_only_what_it_had_open(host: SmallHost) -> None:
    numbers = start(host, 3)
    with Clients(host, 12) as clients:
        time.sleep(0.3)
        host.kill(numbers[1])
        time.sleep(0.3)
    assert {job.worker for job in clients.failed} <= {numbers[1]}
    assert len(clients.failed) <= 12
    wait_for(lambda: settled(host))


def test_the_porter_is_replaced_when_it_dies_idle(host: SmallHost) -> None:
    start(host, 3)
    wait_for(lambda: settled(host))
    host.kill(next(m.worker for m in host.members() if m.state is State.OPEN))
    wait_for(lambda: settled(host))
    assert host.ask(0.0, PATIENCE_S).status == 200


def test_a_worker_that_is_told_to_work_on_takes_work_again(host: SmallHost) -> None:
    (first, second) = start(host, 2)
    wait_for(lambda: settled(host))
    crew = Crew(host.table)
    crew.ask([second], Asked.RETIRE)
    wait_for(lambda: [m.state for m in host.members() if m.worker == second] == [State.RETIRED])
    crew.ask([second], Asked.NOTHING)
    crew.close()
    host.kill(first)
    assert host.ask(0.0, PATIENCE_S).status == 200


@pytest.mark.parametrize("seed", range(4))
def test_no_request_hangs_whatever_happens_to_the_workers(host: SmallHost, seed: int) -> None:
    dice = random.Random(seed)
    numbers = start(host, 2)
    killed: set[int] = set()
    with Clients(host, 8) as clients:
        for _ in range(12):
            match dice.choice(["start", "kill", "retire", "wait"]):
                case "start" if len(numbers) < 5:
                    numbers += start(host, 1)
                case "kill" if len(numbers) > 1:
                    number = numbers.pop(dice.randrange(len(numbers)))
                    killed.add(number)
                    host.kill(number)
                case "retire" if len(numbers) > 1:
                    retire(host, [numbers.pop(dice.randrange(len(numbers)))])
            time.sleep(dice.uniform(0, 0.2))
    assert {job.worker for job in clients.failed} <= killed
    wait_for(lambda: settled(host))


def test_a_worker_that_gets_busy_calls_those_who_may_hold_the_queue(host: SmallHost) -> None:
    start(host, 1)
    other = Process(host.table, 9100)  # it is OPEN: in the queue, perhaps, with the lock
    try:
        with Clients(host, 1):
            assert other.tell("bell") == "!"
    finally:
        other.kill()
