"""`genserve simulate`: tables from measured times, and mistakes in one line."""

import re
from pathlib import Path

import pytest
from real_server import Server

from genserve.commands.simulate import TIMES, command_line, run
from genserve.places import located
from genserve.serving.service import DEADLINE_S
from genserve.simulation.machine import shipped
from genserve.simulation.times import Times, read_times, write_times


@pytest.fixture
def times(tmp_path: Path) -> Path:
    """A file of a machine with one core, slow enough that little has to be simulated."""
    file = tmp_path / "times.json"
    write_times(file, Times(evaluation_ms={1: {1: 40.0, 32: 320.0}}, host_ms=2.0))
    return file


def rows(output: str) -> list[list[str]]:
    """Return the cells of a table, its head and rule left out."""
    lines = [line for line in output.splitlines() if line.startswith("|")]
    assert set(lines[1]) <= set("|-:")
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_shipped_times_are_a_measurement_of_two_lanes() -> None:
    times = read_times(located(TIMES))
    assert set(times.evaluation_ms) == {1, 2}
    assert all(set(table) == {1, 2, 4, 8, 16, 32} for table in times.evaluation_ms.values())
    assert times.host_ms > 0
    assert times.answer_ms > 0
    assert times.request_core_ms > 0
    assert times.about.keys() == {"evaluation_ms", "host_ms", "answer_ms", "request_core_ms", "start_s"}


def test_a_server_is_simulated_as_it_is_shipped() -> None:
    shape = shipped()
    assert (shape.budget, shape.places, shape.queue, shape.deadline_s) == (32, 192, 100, DEADLINE_S)


def test_policies_and_signals_print_a_row_for_each_load(
    times: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--times", str(times), "--seconds", "20", "--loads", "0.2", "0.6", "--steps", "4", "20"]
    run(["policies", *flags, "--replicas", "1", "2"])
    table = rows(capsys.readouterr().out)
    assert [row[:2] for row in table] == [["1", "0.2"], ["1", "0.6"], ["2", "0.2"], ["2", "0.6"]]
    assert all(re.fullmatch(r"[\d.]+ / [\d.]+", cell) for row in table for cell in row[2:])
    run(["signals", *flags])
    table = rows(capsys.readouterr().out)
    assert [float(row[2]) for row in table] == sorted(float(row[2]) for row in table)


def test_more_clients_get_more_images_and_wait_longer(
    times: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--times", str(times), "--seconds", "20", "--steps", "5", "5", "--images", "1", "1"]
    run(["crowds", *flags, "--clients", "1", "8"])
    alone, many = rows(capsys.readouterr().out)
    assert float(alone[1]) == pytest.approx(1 / 0.202, rel=0.1)
    assert float(many[1]) > 2.5 * float(alone[1])
    assert float(many[2]) > float(alone[2])


def test_a_day_has_a_row_for_each_machine_and_peak(times: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--times", str(times), "--seconds", "20", "--steps", "4", "20"]
    run(["day", *flags, "--peaks", "1", "2", "--gpu-ms", "5", "10", "--p95", "5"])
    table = rows(capsys.readouterr().out)
    assert len(table) == 6
    assert [int(row[3]) for row in table[2:]] == [1] * 4  # a GPU alone does that
    assert int(table[1][3]) > int(table[0][3])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["policies", "--loads", "0"], "loads must be above 0"),
        (["policies", "--steps", "4"], "steps must be two numbers"),
        (["policies", "--steps", "9", "4"], "steps must be two numbers, 1 <= fewest <= most, got 9 and 4"),
        (["surges", "--growth", "x 9"], "growth must be of x 2 at once, .*, got x 9"),
        (["check"], "need --address"),
        (
            ["measure", "--address", "http://127.0.0.1:9/x", "--clock", "sun"],
            "clock must be one of wall, cpu",
        ),
        (["policies", "--times", "nowhere.json"], "nowhere.json"),
        (["check", "--address", "http://127.0.0.1:9/x", "--seconds", "2"], "answered none of"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message) as error:
        run(words)
    assert "\n" not in str(error.value)


def test_a_question_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command_line(["weather"])
    assert "policies" in capsys.readouterr().err


@pytest.mark.server
def test_measured_and_simulated_a_real_server_answers_in_similar_times(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both run on this machine. Other programs may disturb either, so only a gross error fails."""
    address, out = f"http://127.0.0.1:{server.port}/predictions/diffusion", tmp_path / "times.json"
    run(["measure", "--address", address, "--home", str(server.home), "--out", str(out)])
    times = read_times(out)
    assert times.evaluation_ms[1][32] > 2 * times.evaluation_ms[1][1]
    assert times.host_ms > 0.3
    assert times.request_core_ms > 0.3
    capsys.readouterr()
    run(["check", "--address", address, "--times", str(out), "--loads", "0.3", "--seconds", "10"])
    ((_, _, p50, *_),) = rows(capsys.readouterr().out)
    real, simulated = map(float, re.findall(r"[\d.]+", p50)[:2])
    assert 1 / 3 < simulated / real < 3
