"""What scripts/bench makes of the figures of its clients, and of a machine that is not quiet."""

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import program
import pytest
from real_server import ROOT

Row = dict[str, Any]


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return program.imported("scripts/bench")


@pytest.fixture(scope="module")
def part(bench: ModuleType) -> Callable[[str], ModuleType]:
    """Import a module of scripts/benching, whose folder scripts/bench makes known."""
    return importlib.import_module


def rows_of(
    system: str, precision: str, rates: Iterable[float], workload: str = "one-32", **more: Any
) -> list[Row]:
    """Return the rows of a system in rounds 1, 2, ..., all of them quiet."""
    about = {"system": system, "precision": precision, "workload": workload}
    return [
        about
        | {"round": k, "images_per_s": rate, "attempt": 1, "calibration": {"before": 1.0, "after": 1.0}}
        | more
        for k, rate in enumerate(rates, 1)
    ]


def cells(report: str, heading: str) -> list[list[str]]:
    """Return the cells of the table whose first line has this heading."""
    lines = report.splitlines()
    start = next(k for k, line in enumerate(lines) if f"| {heading} |" in line) + 2
    rows = [*lines[start:], ""]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in rows[: rows.index("")]]


def test_percentiles_are_those_of_the_listed_times() -> None:
    clients = program.imported("scripts/bench_peers/clients.py")
    times = {10.0: 50, 20.0: 45, 30.0: 4, 40.0: 1}
    assert [clients.percentile(times, q) for q in (50, 95, 99, 100)] == [10, 20, 30, 40]


def test_rates_count_the_whole_seconds_of_the_window() -> None:
    clients = program.imported("scripts/bench_peers/clients.py")
    began = 1000.4
    first = 1000 + 1 + clients.WARM_S
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
    with program.background(command, text=True, **pipes) as process:
        figures = clients.finished(process, 2)
    assert figures["images_per_s"] == (2 * 4 + 2 * 4 + 3) / 2
    assert figures["requests_per_s"] == (2 + 2 + 3) / 2
    assert (figures["failures"], figures["p50"], figures["p99"]) == (1, 100, 900)


# ---- ratios ------------------------------------------------------------------------------------------------


def test_a_ratio_is_of_one_round_and_the_best_loop_is_chosen_once_by_its_median(part: Any) -> None:
    rows = [  # three rounds, the second one disturbed
        *rows_of("genserve", "fp32", (80, 40, 60)),
        *rows_of("bare", "fp32", (90, 60, 70), loops="2 x 8"),
        *rows_of("bare", "fp32", (100, 44, 80), loops="2 x 16"),  # better by its median
        *rows_of("fastapi", "fp32", (40, 10, 30)),
    ]
    report = part("reporting").report(rows, 1.0)
    assert cells(report, "times as fast") == [
        ["one-32", "fp32", "genserve", "bare, 2 x 16", "0.80", "0.75 to 0.91", "3"],
        ["one-32", "fp32", "genserve", "fastapi", "2.00", "2.00 to 4.00", "3"],
    ]
    assert [row[:6] for row in cells(report, "images/s")] == [
        ["one-32", "genserve", "fp32", "60.0", "40.0 to 80.0", "3"],
        ["one-32", "bare, 2 x 16", "fp32", "80.0", "44.0 to 100.0", "3"],
        ["one-32", "fastapi", "fp32", "30.0", "10.0 to 40.0", "3"],
    ]
    assert report.index("How many times as fast genserve is") < report.index("times as fast |")


def test_no_ratio_is_of_two_precisions_models_or_workloads(part: Any) -> None:
    rows = [
        *rows_of("genserve", "bf16", (80,)),
        *rows_of("genserve-fp32", "fp32", (50,)),
        *rows_of("energy-fp32", "fp32", (10,)),
        *rows_of("fastapi", "fp32", (20,)),
        *rows_of("fastapi", "bf16", (40,)),
        *rows_of("torchserve", "fp32", (25,), "one-8"),
    ]
    report = part("reporting").report(rows, 1.0)
    assert [row[1:5] for row in cells(report, "times as fast")] == [
        ["bf16", "genserve", "fastapi", "2.00"],
        ["fp32", "genserve-fp32", "fastapi", "2.50"],
    ]
    assert "times as fast" not in part("reporting").report(rows[1:3], 1.0)


def test_only_rounds_that_both_have_make_a_ratio(part: Any) -> None:
    rows = rows_of("genserve", "fp32", (80, 40)) + rows_of("fastapi", "fp32", (40,))
    assert cells(part("reporting").report(rows, 1.0), "times as fast")[0][4:] == ["2.00", "2.00 to 2.00", "1"]


def test_a_round_in_which_requests_failed_makes_no_ratio(part: Any) -> None:
    rows = rows_of("genserve", "fp32", (80, 40)) + rows_of("fastapi", "fp32", (400, 40), failures=0)
    rows[2]["failures"] = 1000
    assert cells(part("reporting").report(rows, 1.0), "times as fast")[0][4:] == ["1.00", "1.00 to 1.00", "1"]


def test_the_time_of_a_short_request_is_no_ratio_and_failures_are_added_up(part: Any) -> None:
    numbers = {"requests_per_s": 8, "p50": 90, "p95": 120, "p99": 150, "failures": 1}
    rows = [
        *rows_of("genserve", "fp32", (8, 9), "10 steps beside 200 steps", **numbers),
        *rows_of("torchserve", "fp32", (4, 4), "10 steps beside 200 steps", **numbers),
    ]
    report = part("reporting").report(rows, 1.0)
    assert "times as fast" not in report
    assert cells(report, "images/s")[0][6:] == ["8.0", "90", "120", "150", "2"]


def test_nothing_is_left_open_in_the_systems_of_a_call(part: Any) -> None:
    resolved = part("systems").resolved(["genserve", "genserve-fp32", "fastapi"], ["fp32", "bf16"], "bf16")
    labels = ["genserve (bf16)", "genserve-fp32 (fp32)", "fastapi (fp32)", "fastapi (bf16)"]
    assert [system.label for system in resolved] == labels
    assert resolved[0].build_flags == ["diffusion", "--precision", "bf16", "--backend", "openvino"]


def test_an_archive_on_another_backend_has_a_limit_of_its_own(part: Any) -> None:
    systems = part("systems")
    ours = systems.System(name="ours", kind="archive", precision="fp32", backend="other")
    limit = systems.System(name="limit", kind="loop", precision="fp32", backend="other")
    names = ["bare-torchscript", "genserve-torchscript", "genserve-fp32", "fastapi"]
    known = systems.resolved(names, ["fp32", "bf16"], "fp32")
    assert ours.build_flags == ["diffusion", "--precision", "fp32", "--backend", "other"]
    opponents = systems.opponents(ours, [*known, ours, limit])
    assert [system.name for system in opponents] == ["genserve-torchscript", "fastapi", "limit"]
    opponents = systems.opponents(known[1], [*known, ours, limit])
    assert [system.name for system in opponents] == ["bare-torchscript", "fastapi"]


# ---- quiet or not ------------------------------------------------------------------------------------------


def quiet_of(part: Any, seconds: Sequence[float], work: float = 1.0) -> tuple[Any, list[float]]:
    """Return what brackets measurements with calibrations of these seconds, and the list of its pauses."""
    left, pauses = iter(seconds), []
    calibrations = (part("quiet").Calibration(taken, work) for taken in left)
    return part("quiet").Quiet(lambda: next(calibrations), pauses.append), pauses


def test_a_measurement_that_was_not_quiet_is_repeated_and_all_attempts_are_kept(part: Any) -> None:
    quiet, _ = quiet_of(part, [1.0] * 5 + [1.0, 1.3] + [1.02, 1.05])
    rates = iter([10.0, 20.0])
    rows = list(quiet.measured(lambda: {"images_per_s": next(rates)}))
    assert rows == [
        {"images_per_s": 10.0, "attempt": 1, "calibration": {"before": 1.0, "after": 1.3}},
        {"images_per_s": 20.0, "attempt": 2, "calibration": {"before": 1.02, "after": 1.05}},
    ]
    assert part("quiet").slowdown(rows[0], quiet.best) == pytest.approx(0.3)


def test_attempts_end_on_a_machine_that_stays_busy(part: Any) -> None:
    attempts = part("quiet").ATTEMPTS
    quiet, _ = quiet_of(part, [1.0] * 5 + [1.0, 1.3] * attempts)
    assert len(list(quiet.measured(dict))) == attempts


def test_a_measurement_waits_for_the_machine_to_be_quiet(part: Any) -> None:
    quiet, pauses = quiet_of(part, [1.0] * 5 + [1.5, 1.4, 1.01, 1.0])
    (row,) = quiet.measured(dict)
    assert row["calibration"] == {"before": 1.01, "after": 1.0}
    assert pauses == [part("quiet").PAUSE_S] * 3  # twice before, once after


def test_a_better_calibration_counts_for_what_came_before_it(part: Any) -> None:
    calibration = part("quiet").Calibration
    left = iter([calibration(1.2, 1.2)] * 7 + [calibration(1.0, 1.0)] * 2)
    quiet = part("quiet").Quiet(lambda: next(left), lambda _: None)
    first, second = [*quiet.measured(dict), *quiet.measured(dict)]
    assert quiet.best == 1.0
    assert part("reporting").disturbed([first, second], quiet.best) == [first]


def test_a_neighbour_that_stays_is_seen_by_what_the_work_takes_of_a_processor(part: Any) -> None:
    quiet, _ = quiet_of(part, [1.5] * 100, work=1.0)
    rows = list(quiet.measured(dict))
    assert part("reporting").disturbed(rows, quiet.best) == rows
    cores = [(1.5, 1.1), (1.1, 1.0)]  # seconds until done, and of the processor
    assert part("quiet").Calibration.of(cores) == (1.5, 1.0)


def test_there_is_no_table_of_a_disturbed_machine_unless_it_is_asked_for(part: Any) -> None:
    rows = rows_of("genserve", "fp32", (80, 40)) + rows_of("bare", "fp32", (90, 50), loops="2 x 8")
    rows[3]["calibration"] = {"before": 1.01, "after": 1.25}
    with pytest.raises(SystemExit) as stopped:
        part("reporting").report(rows, 1.0)
    assert str(stopped.value).splitlines() == [
        "No table. DISTURBED: beside 1 of 4 measurements a calibration was more than 12% slower than "
        "the best, by up to 25%.",
        "  round 2, bare (fp32), one-32 2 x 8: 25% slower",
        "--anyway prints it all the same.",
    ]
    first, *rest = part("reporting").report(rows, 1.0, anyway=True).splitlines()
    assert first.startswith("DISTURBED: beside 1 of 4 measurements")
    assert cells("\n".join(rest), "times as fast")
    rows[3]["calibration"]["after"] = 1.04
    assert part("reporting").report(rows, 1.0).startswith("Quiet: no calibration was more than 4% slower")


def test_the_quietest_attempt_counts_whatever_it_measured(part: Any) -> None:
    attempts = [row for rate in (90, 50, 70) for row in rows_of("genserve", "fp32", (rate,))]
    for row, after in zip(attempts, (1.4, 1.2, 1.3), strict=True):
        row["calibration"] = {"before": 1.0, "after": after}
    assert [row["images_per_s"] for row in part("reporting").kept(attempts, 1.0)] == [50]


def test_figures_of_an_earlier_call_are_shown_again(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = {"calibration": {"best": 0.5}, "results": rows_of("genserve", "fp32", (80,))}  # all twice as slow
    (tmp_path / "bench.json").write_text(json.dumps(saved))
    monkeypatch.setattr(sys, "argv", ["bench", "--show", str(tmp_path / "bench.json")])
    with pytest.raises(SystemExit, match=r"genserve \(fp32\), one-32: 100% slower"):
        bench.main()
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--anyway"])
    bench.main()
    assert capsys.readouterr().out.startswith("DISTURBED: beside 1 of 1")


def test_the_machine_answers_each_line_with_seconds_per_core(
    part: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part("answering"), "PYTHON", sys.executable)
    with part("answering").answering(ROOT / "scripts" / "benching" / "machine.py") as ask:
        machine = ask(None)
        cores = ask("")
    assert machine["precision"] in ("fp32", "bf16")
    assert len(cores) == machine["cores"]
    assert all(taken * 1.01 > work > 0.05 for taken, work in cores)


def test_a_program_that_ends_early_is_named(part: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part("answering"), "PYTHON", sys.executable)
    with part("answering").answering("-c", "print(1)") as ask:
        assert ask(None) == 1
        with pytest.raises(SystemExit, match=r"print\(1\) ended without an answer"):
            ask("more")
