"""Measured times: straight lines between them, a file and back, mistakes by name."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from genserve.simulation.times import Times, read_times, write_times

TIMES = Times(
    evaluation_ms={1: {1: 2.0, 2: 3.0, 8: 9.0}, 2: {1: 4.0, 8: 18.0}}, host_ms=2.0, about={"load": 0.5}
)


@pytest.mark.parametrize(
    ("images", "lanes", "ms"),
    [(1, 1, 2), (2, 1, 3), (5, 1, 6), (8, 1, 9), (14, 1, 15), (8, 2, 18), (1, 9, 4)],
)
def test_times_are_on_straight_lines_through_the_measured_ones(images: int, lanes: int, ms: float) -> None:
    assert TIMES.evaluation_s(images, lanes) == pytest.approx(ms / 1000)


def test_the_rate_is_that_of_all_lanes() -> None:
    assert TIMES.per_second(8, 2) == pytest.approx(2 * 8 / 0.018)


def test_a_file_keeps_times(tmp_path: Path) -> None:
    write_times(tmp_path / "times.json", TIMES)
    assert read_times(tmp_path / "times.json") == TIMES


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"evaluation_ms": {}}, "a table for each of 1, 2, ... lanes"),
        ({"evaluation_ms": {"2": {"1": 1.0}}}, "a table for each of 1, 2, ... lanes"),
        ({"evaluation_ms": {"1": {"0": 1.0}}}, "images >= 1 and times > 0"),
        ({"evaluation_ms": {"1": {"1": 0.0}}}, "images >= 1 and times > 0"),
        ({"evaluation_ms": {"1": {"1": 1.0}}, "host_ms": -1}, "host_ms must be at least 0, got -1"),
        ({"evaluation_ms": {"1": {"1": 1.0}}, "speed": 1}, "speed"),
        ({"evaluation_ms": [1]}, "must have times as"),
        ({}, "evaluation_ms"),
    ],
)
def test_a_wrong_file_is_named_with_its_mistake(tmp_path: Path, values: object, message: str) -> None:
    file = tmp_path / "times.json"
    file.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message) as error:
        read_times(file)
    assert str(file) in str(error.value)


def test_about_is_not_needed() -> None:
    assert replace(TIMES, about={}).about == {}
