"""What scripts/bench measures of a system; stand-ins take the place of servers and of loops."""

import contextlib
import importlib
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import program
import pytest

OPTIONS = Namespace(only=["one-32", "mixed-8", "latency"], seconds=6)


@pytest.fixture(scope="module")
def part() -> Any:
    program.imported("scripts/bench")  # makes the folder of its parts known
    return importlib.import_module


def measured(
    part: Any, monkeypatch: pytest.MonkeyPatch, name: str, options: Namespace = OPTIONS
) -> list[dict[str, Any]]:
    """Return the rows of a system on a quiet machine."""

    @contextlib.contextmanager
    def served(*_: object) -> Iterator[str]:
        yield "address"

    @contextlib.contextmanager
    def looping(*_: object) -> Iterator[Any]:
        yield lambda line: ["2 x 1", "2 x 8"] if line is None else {line: 5.0}

    speed, calibration = part("speed"), part("quiet").Calibration(1.0, 1.0)
    monkeypatch.setattr(speed, "served", served)
    monkeypatch.setattr(speed, "looping", looping)
    monkeypatch.setattr(speed, "load", lambda *_: None)
    monkeypatch.setattr(speed, "finished", lambda *_: {"images_per_s": 7.0})
    monkeypatch.setattr(speed.time, "sleep", lambda _: None)
    quiet = part("quiet").Quiet(lambda: calibration, lambda _: None)
    (system,) = part("systems").resolved([name], ["bf16"], "bf16")
    return speed.measured(system, options, quiet, Path())


@pytest.mark.parametrize(
    ("name", "latency"), [("genserve", True), ("torchserve", True), ("fastapi", False), ("energy", False)]
)
def test_a_system_is_measured_once_per_workload(
    part: Any, monkeypatch: pytest.MonkeyPatch, name: str, latency: bool
) -> None:
    rows = measured(part, monkeypatch, name)
    workloads = ["one-32", "mixed-8", *(part("speed").LATENCY if latency else [])]
    assert [(row["system"], row["precision"], row["workload"]) for row in rows] == [
        (name, "bf16", workload) for workload in workloads
    ]
    assert {(row["images_per_s"], row["calibration"]["before"]) for row in rows} == {(7.0, 1.0)}


def test_each_size_of_a_loop_is_a_measurement_beside_one_workload(
    part: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = measured(part, monkeypatch, "bare")
    assert [(row["workload"], row["loops"]) for row in rows] == [("one-32", "2 x 1"), ("one-32", "2 x 8")]
    assert {row["images_per_s"] for row in rows} == {5.0}
    assert measured(part, monkeypatch, "bare", Namespace(only=["one-8"], seconds=6)) == []
