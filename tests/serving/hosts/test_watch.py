"""The watch of a worker: a stop of the host waits for what is open and for nothing else."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from small_host import wait_for

from genserve.crew import Asked, Place
from genserve.serving.hosts.anchors import Alone
from genserve.serving.hosts.watch import NUDGE_S, PAUSE_S, Watch

DEADLINE_S = 20.0


class Calls(grpc.GenericRpcHandler):
    """Keeps each call open until its client ends it."""

    def __init__(self) -> None:
        self.open = 0

    def service(self, _: Any) -> Any:
        return grpc.stream_stream_rpc_method_handler(self._talk)

    def _talk(self, messages: Iterator[bytes], _: Any) -> Iterator[bytes]:
        self.open += 1
        for _message in messages:
            pass
        self.open -= 1
        yield from ()


class Lanes:
    """Notes how many lanes there are."""

    n = 0
    since = 0.0

    def resize(self, n: int) -> None:
        self.n = n

    def evaluating_since(self) -> float:
        return self.since


class Service:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.open: set[str] = set()
        self.lanes = Lanes()
        self.running = SimpleNamespace(deadline_s=DEADLINE_S)
        self.draining = self.paused = False
        self.expired = 0

    def drain(self, on: bool = True) -> None:
        self.draining = on

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def expire(self) -> None:
        self.expired += 1


class Nudged(Alone):
    """Notes how often it was to bring the host."""

    times = 0

    def nudge(self) -> None:
        self.times += 1


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[grpc.Server, Calls]]:
    calls = Calls()
    server = grpc.server(ThreadPoolExecutor(4), handlers=[calls])
    monkeypatch.setenv("TS_GRPC_INFERENCE_PORT", str(server.add_insecure_port("127.0.0.1:0")))
    server.start()
    yield server, calls
    server.stop(None).wait()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with closing(Place(tmp_path / "crew", 9000)) as place:
        yield place


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def anchors() -> Nudged:
    return Nudged()


@pytest.fixture
def watch(service: Any, place: Place, anchors: Nudged, host: tuple[grpc.Server, Calls]) -> Iterator[Watch]:
    watch = Watch(service, place, anchors, cores=8)
    wait_for(lambda: host[1].open == 1)
    yield watch
    watch.close()


def visits(watch: Watch, during: Callable[[], object]) -> None:
    """Let the host come every few milliseconds while a function runs, as it does for clients that ask."""
    over = threading.Event()

    def come() -> None:
        while not over.is_set():
            with watch:
                time.sleep(0.002)
            time.sleep(0.005)

    thread = threading.Thread(target=come)
    thread.start()
    try:
        during()
    finally:
        over.set()
        thread.join()


def test_a_stop_waits_for_what_is_open_and_for_no_refusals(
    watch: Watch, service: Service, host: tuple[grpc.Server, Calls]
) -> None:
    service.open = {"request"}
    stopped = host[0].stop(60)
    wait_for(lambda: service.draining)
    assert not stopped.wait(0.5)

    def end() -> None:
        service.open = set()
        assert stopped.wait(5), "visits for refusals keep the host from stopping"

    visits(watch, end)


def test_answers_that_are_on_their_way_are_waited_for(
    watch: Watch, service: Service, host: tuple[grpc.Server, Calls]
) -> None:
    with watch:
        watch.works()  # and its answer is in hand: nothing is open any more
        stopped = host[0].stop(60)
        wait_for(lambda: service.draining)
        assert not stopped.wait(0.5)
    assert stopped.wait(5)


def test_a_host_that_stays_away_is_called_and_then_the_lanes_stand_still(
    watch: Watch, service: Service, anchors: Nudged
) -> None:
    with watch:
        service.open = {"ghost"}
        watch.works()
        time.sleep(PAUSE_S + 0.5)
        assert anchors.times == 0, "the host is here"
    time.sleep(NUDGE_S + 0.3)
    assert anchors.times > 0
    assert not service.paused
    wait_for(lambda: service.paused)
    assert service.expired > 0
    with watch:
        assert not service.paused


def test_nothing_open_is_nothing_to_miss(watch: Watch, service: Service, anchors: Nudged) -> None:
    with watch:
        pass
    time.sleep(PAUSE_S + 0.7)
    assert (anchors.times, service.paused) == (0, False)


def test_a_duty_to_drain_is_taken_up_and_dropped(watch: Watch, service: Service, place: Place) -> None:
    place.ask([9000], Asked.DRAIN)
    wait_for(lambda: service.draining)
    place.ask([9000], Asked.NOTHING)
    wait_for(lambda: not service.draining)


def test_the_table_has_the_time_of_the_longest_evaluation(
    watch: Watch, service: Service, place: Place
) -> None:
    service.lanes.since = time.monotonic() - 1
    wait_for(lambda: place.me.evaluating_since == service.lanes.since)
    wait_for(lambda: service.lanes.n == 8)  # it is alone
