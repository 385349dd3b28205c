"""The table of workers is right whatever happens to the processes that share it."""

import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from crew_process import Process
from hypothesis import given, settings
from hypothesis import strategies as st

from genserve.crew import SLOTS, Asked, Crew, Member, Place, State, ring

STATES = [state.name for state in State]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "crew"


@pytest.fixture
def pair(table: Path) -> Iterator[list[Process]]:
    processes = [Process(table, number) for number in (9000, 9001)]
    yield processes
    for process in processes:
        process.kill()


def members(table: Path) -> list[Member]:
    with closing(Crew(table)) as crew:
        return crew.members()


@settings(max_examples=12)
@given(
    st.lists(
        st.tuples(st.sampled_from(["join", "kill", "put"]), st.integers(0, 3), st.sampled_from(STATES)),
        min_size=4,
        max_size=12,
    )
)
def test_the_table_has_the_living_and_what_they_wrote_last(steps: list[tuple[str, int, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "crew"
        alive: list[Process] = []
        wrote: dict[int, tuple[str, int]] = {}
        try:
            for number, (what, k, state) in enumerate(steps, 9000):
                if what == "join" and len(alive) < 4:
                    alive.append(Process(table, number))
                    wrote[number] = ("OPEN", 0)
                elif what == "kill" and alive:
                    process = alive.pop(k % len(alive))
                    process.kill()
                    del wrote[process.number]
                elif what == "put" and alive:
                    process = alive[k % len(alive)]
                    process.tell(f"put {state} {number}")
                    wrote[process.number] = (state, number)
                if table.exists():
                    assert {m.worker: (m.state.name, m.open) for m in members(table)} == wrote
            for process in alive:
                expected = {f"{n}:{s}:{k}" for n, (s, k) in wrote.items() if n != process.number}
                assert set(process.tell("others").split()) == expected
        finally:
            for process in alive:
                process.kill()


def test_a_duty_and_a_number_that_are_written_at_once_are_both_kept(pair: list[Process]) -> None:
    with ThreadPoolExecutor(2) as pool:
        lost = list(pool.map(Process.tell, pair, ["asks 3000 9001", "puts 3000"]))
    assert lost == ["0", "0"]


def test_who_is_asked_hears_its_bell(table: Path) -> None:
    with closing(Place(table, 1)) as place:
        place.bell.settimeout(5)
        place.ask([1], Asked.RETIRE)
        assert place.bell.recv(8) == b"!"
        assert place.me.duty is Asked.RETIRE
        ring([place.me])
        assert place.bell.recv(8) == b"!"
        with pytest.raises(LookupError):
            place.ask([2], Asked.RETIRE)


def test_a_process_that_dies_inside_a_change_holds_no_one_up(pair: list[Process], table: Path) -> None:
    assert pair[0].tell("lock") == "locked"
    pair[0].kill()
    began = time.monotonic()
    assert [m.worker for m in members(table)] == [9001]
    assert time.monotonic() - began < 5


def test_a_table_that_no_worker_has_made_is_no_table(table: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Crew(table)
    table.write_bytes(b"")  # one that is being made
    with pytest.raises(FileNotFoundError, match="no table yet"):
        Crew(table)


def test_a_worker_that_finds_every_place_taken_says_so(pair: list[Process], table: Path) -> None:
    assert pair[0].tell("take") == "took"
    with pytest.raises(OSError, match=f"at most {SLOTS} workers"):
        Place(table, 9002)
    pair[0].kill()
    with closing(Place(table, 9002)) as place:
        assert [member.worker for member in place.others()] == [9001]
