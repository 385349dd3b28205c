"""A run is exported to the same bytes every time, or refused in one sentence."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from real_server import ROOT

from genserve.files import write_json
from genserve.runs.export import export

RUN = ROOT / "weights" / "diffusion-mnist"


def test_the_same_run_gives_the_same_bytes_and_no_path_of_this_machine(tmp_path: Path) -> None:
    for name in ("a", "b"):
        command = [sys.executable, "-m", "genserve.runs.export", str(RUN), str(tmp_path / name)]
        subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": "0"}, cwd=tmp_path)
    first, second = ((tmp_path / name / "model.pt").read_bytes() for name in ("a", "b"))
    assert first == second
    assert str(ROOT).encode() not in first
    assert str(Path(torch.__file__).parent).encode() not in first


@pytest.mark.parametrize(
    ("run_name", "file", "content"),
    [
        ("energy-mnist", "serving.json", '{"sampler": "ddim", "st'),
        ("energy-mnist", "serving.json", "[]"),
        ("energy-mnist", "serving.json", '{"colour": 3}'),
        ("energy-mnist", "serving.json", '{"sampler": "euler"}'),
        ("energy-mnist", "serving.json", '{"tuned": [{"steps": 3}]}'),
        ("energy-mnist", "serving.json", '{"walk": {"colour": 3}}'),
        ("energy-mnist", "energies.json", '{"sigma": 0.5, "quant'),
        ("energy-mnist", "energies.json", '{"sigma": 0.5}'),
        ("energy-mnist", "energies.json", '{"sigma": 0.5, "quantiles": ["low"]}'),
        ("energy-mnist", "weights.safetensors", "no tensors"),
        ("energy-mnist-pcd", "config.json", '{"format": 1, "model": {"family"'),
    ],
)
def test_a_run_with_a_broken_file_is_refused_in_one_sentence(
    tmp_path: Path, run_name: str, file: str, content: str
) -> None:
    shutil.copytree(ROOT / "weights" / run_name, tmp_path / "run")
    (tmp_path / "run" / file).write_text(content)
    with pytest.raises(ValueError, match=rf"run/{file} [^\n]*$"):
        export(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_energy_of_settings_that_are_missing_is_refused_in_one_sentence(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "weights/energy-mnist-pcd", tmp_path / "run")
    config = json.loads((tmp_path / "run/config.json").read_text())
    for train in ({}, {"langevin": {}}):
        write_json(tmp_path / "run/config.json", config | {"train": train})
        with pytest.raises(ValueError, match=r"run/config\.json [^\n]*$"):
            export(tmp_path / "run", tmp_path / "out")


def test_a_full_disk_leaves_the_old_model_and_is_named(
    exported: Path, tmp_path: Path, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    shutil.copytree(exported, tmp_path / "out")
    before = (tmp_path / "out/model.pt").read_bytes()
    with full_disk(10_000), pytest.raises(OSError, match=r"File too large: .*out/model\.pt"):
        export(RUN, tmp_path / "out")
    assert (tmp_path / "out/model.pt").read_bytes() == before
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.pt", "model.json"}


def test_the_command_ends_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "genserve.runs.export", str(tmp_path), "out"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert done.stderr == f"error: {tmp_path} is no run directory: it has no config.json\n"


def test_the_command_without_its_two_arguments_shows_its_usage() -> None:
    command = [sys.executable, "-m", "genserve.runs.export", "only-one"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "usage: python -m genserve.runs.export RUN OUTPUT\n")


def test_a_classifier_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="family 'classifier', which is not served"):
        export(ROOT / "weights/classifier-mnist", tmp_path / "out")
    assert not (tmp_path / "out").exists()
