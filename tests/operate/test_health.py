"""When a worker counts as stuck, by the table that it writes itself."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from program import background
from real_server import ROOT, free_ports

from genserve.crew import FILE, State
from genserve.operate.health import EVALUATING_S, FOR_GOOD, UNVISITED_S, stuck

WORKER = """
import sys, time
from pathlib import Path
from genserve.crew import Place, State
place = Place(Path(sys.argv[1]), 9000)
now = time.monotonic()
away, evaluating = float(sys.argv[3]), float(sys.argv[4])
since = evaluating and now - evaluating
place.put(state=State[sys.argv[2]], open=3, visited=now - away, evaluating_since=since)
print("ready", flush=True)
time.sleep(60)
"""
Look = Callable[..., str | None]


@pytest.fixture
def look(tmp_path: Path) -> Iterator[Look]:
    """Look at a worker of this state, which the host visited and whose evaluation began so long ago."""
    table = tmp_path / "models" / "one" / FILE
    table.parent.mkdir(parents=True)
    with ExitStack() as stack:

        def judge(
            state: State, away: float, evaluating: float, *, patience: int = 1, continuous: bool = True
        ) -> str | None:
            command = [sys.executable, "-c", WORKER, table, state.name, away, evaluating]
            pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True}
            worker = stack.enter_context(
                background(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, **pipes)
            )
            assert worker.stdout
            assert worker.stdout.readline() == "ready\n"
            model = {"workers": [{"id": "9000", "pid": worker.pid}], "continuousBatching": continuous}
            return stuck({"temporary": str(tmp_path)}, model, patience)

        yield judge


@pytest.mark.parametrize("state", [State.OPEN, State.SITS, State.RETIRED])
def test_a_worker_with_nothing_open_may_be_left_alone(look: Look, state: State) -> None:
    assert look(state, 1e6, 0) is None


def test_a_busy_worker_that_the_host_has_left_is_stuck(look: Look) -> None:
    assert look(State.BUSY, UNVISITED_S - 5, 0) is None
    assert (
        look(State.BUSY, UNVISITED_S + 1, 0) == "worker 9000 has 3 open requests and was not visited for 31 s"
    )


def test_a_batch_is_one_visit_however_long(look: Look) -> None:
    assert look(State.BUSY, 1e6, 1, continuous=False) is None


@pytest.mark.parametrize("continuous", [True, False])
def test_an_evaluation_without_an_end_is_stuck(look: Look, continuous: bool) -> None:
    assert look(State.BUSY, 0, EVALUATING_S - 5, continuous=continuous) is None
    fault = look(State.BUSY, 0, EVALUATING_S + 1, continuous=continuous)
    assert fault == "worker 9000 has been in one evaluation for 61 s"


def test_liveness_waits_longer(look: Look) -> None:
    assert look(State.BUSY, UNVISITED_S * FOR_GOOD - 5, 0, patience=FOR_GOOD) is None
    assert look(State.BUSY, UNVISITED_S * FOR_GOOD + 1, 0, patience=FOR_GOOD)


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "scripts" / "healthcheck", "--home", tmp_path, "--port", free_ports(2)]
    for flags, word in (([], "ready"), (["--live"], "alive")):
        done = subprocess.run([*map(str, command), *flags], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith(f"not {word}: the server on port ")
        assert done.stderr.endswith("does not answer ([Errno 111] Connection refused)\n")
        assert done.stderr.count("\n") == 1
