"""Programs find weights and data below the working directory, then below the project."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from real_server import ROOT

from genserve.commands import detect, evaluate, figures, tune
from genserve.places import PROJECT, located, places


def test_a_path_is_read_below_the_working_directory_first_then_below_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert PROJECT == ROOT
    assert located("weights/classifier-mnist") == ROOT / "weights/classifier-mnist"
    (tmp_path / "weights/classifier-mnist").mkdir(parents=True)
    assert located("weights/classifier-mnist") == Path("weights/classifier-mnist")
    assert located("weights/energy-mnist") == ROOT / "weights/energy-mnist"  # others are still the project's
    assert located(ROOT / "weights") == ROOT / "weights"
    assert located("nowhere/at-all") == Path("nowhere/at-all")  # as an error must name it


def test_below_the_project_there_is_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert places("weights") == [Path("weights")]


@pytest.mark.parametrize(
    ("program", "flags", "run"),
    [
        (evaluate, [], "diffusion-mnist"),
        (tune, [], "diffusion-mnist"),
        (detect, [], "energy-mnist"),
        (figures, ["all"], "diffusion-mnist"),
        (evaluate, ["--run", "weights/energy-mnist"], "energy-mnist"),
        (tune, ["--classifier", "weights/classifier-mnist"], "diffusion-mnist"),
    ],
)
def test_programs_find_shipped_runs_from_another_directory(
    program: ModuleType, flags: list[str], run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = program.command_line(flags)
    assert config.run == ROOT / "weights" / run
    if "--classifier" in flags:
        assert config.classifier == ROOT / "weights/classifier-mnist"


def test_an_evaluation_runs_from_another_directory_and_writes_there(tmp_path: Path) -> None:
    flags = ["--n", "8", "--settings", "heun:1", "--record", "false", "--device", "cpu", "--threads", "1"]
    command = [sys.executable, str(ROOT / "scripts/evaluate.py"), *flags, "--data", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out/evaluation.json").read_text())
    for role, name in (
        ("source", "diffusion-mnist"),
        ("classifier", "classifier-mnist"),
        ("judge", "judge-mnist"),
    ):
        assert Path(result[role]) == ROOT / "weights" / name
    assert os.listdir(tmp_path) == ["out"]
