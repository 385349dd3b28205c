"""What scripts/bench makes of the figures of its clients."""

import json
import subprocess
import sys
from types import ModuleType

import program
import pytest


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return program.imported("scripts/bench")


def test_percentiles_are_those_of_the_listed_times(bench: ModuleType) -> None:
    times = {10.0: 50, 20.0: 45, 30.0: 4, 40.0: 1}
    assert [bench.percentile(times, q) for q in (50, 95, 99, 100)] == [10, 20, 30, 40]


def test_rates_count_the_whole_seconds_of_the_window(bench: ModuleType) -> None:
    began = 1000.4
    first = 1000 + 1 + bench.WARM_S
    entries = [
        {  # answers of 4 images
            "name": "4", "num_requests": 9, "num_failures": 0, "start_time": began,
            "response_times": {"100": 9},
            "num_reqs_per_sec": {str(first - 1): 5, str(first): 2, str(first + 1): 2},
        },
        {  # and of one; the last one came when the clients were stopping
            "name": "1", "num_requests": 4, "num_failures": 1, "start_time": began + 1,
            "response_times": {"50": 3, "900": 1}, "num_reqs_per_sec": {str(first + 1): 3, str(first + 2): 1},
        },
    ]  # fmt: skip
    command = [sys.executable, "-c", f"print({json.dumps(entries)!r})"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with program.background(command, text=True, **pipes) as clients:
        figures = bench.finished(clients, 2)
    assert figures["images_per_s"] == (2 * 4 + 2 * 4 + 3) / 2
    assert figures["requests_per_s"] == (2 + 2 + 3) / 2
    assert (figures["failures"], figures["p50"], figures["p99"]) == (1, 100, 900)


def test_the_table_shows_medians_and_ratios_of_the_same_round(bench: ModuleType) -> None:
    results = [
        {"system": system, "workload": "one-32", "images_per_s": rate}
        for rates in (
            (80, 90, 100, 40),
            (40, 60, 44, 10),
            (60, 70, 80, 30),
        )  # three rounds, the second one disturbed
        for system, rate in zip(("genserve", "bare (2 x 8)", "bare (2 x 16)", "fastapi"), rates, strict=True)
    ]
    rows = [[cell.strip() for cell in row.split("|")[2:5]] for row in bench.table(results).splitlines()[2:]]
    assert rows == [
        ["genserve", "60.0", "1.00"],
        ["bare (2 x 16)", "80.0", "1.25"],  # the better one by its median; 1.25, 1.1, 1.33
        ["fastapi", "30.0", "0.50"],
    ]
