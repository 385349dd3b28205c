"""From run directory to archive contents, on the model this project ships."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from real_server import ROOT

from genserve.files import write_json
from genserve.precision import PRECISIONS
from genserve.runs.contract import read_spec
from genserve.runs.defaults import spec_of
from genserve.runs.directory import load_denoiser, model_config
from genserve.runs.export import export
from genserve.runs.loading import load_model
from genserve.sampling.schedules import Tuned
from genserve.sampling.settings import Setting

RUN = ROOT / "weights" / "diffusion-mnist"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export")
    export(RUN, out)
    return out


@pytest.mark.parametrize("n", [1, 3, 16])
def test_torchscript_is_the_trained_denoiser(exported: Path, n: int) -> None:
    eager = load_denoiser(RUN)
    spec, scripted = load_model(exported, torch.device("cpu"))
    x = torch.randn(n, *spec.shape, generator=torch.Generator().manual_seed(0))
    sigma = torch.logspace(-2, 1.6, n)
    y = torch.arange(n) % (spec.no_class + 1)
    with torch.no_grad():
        torch.testing.assert_close(scripted(x, sigma, y), eager(x, sigma, y), rtol=0, atol=1e-5)


def test_the_contract_says_what_the_run_is(exported: Path) -> None:
    spec, model = read_spec(exported / "model.json"), model_config(RUN)
    assert (spec.shape, spec.classes, spec.sigma_max) == (model.shape, model.classes, model.sigma_max)
    assert json.loads((exported / "model.json").read_text()) == json.loads(
        json.dumps(dataclasses.asdict(spec))
    )


def test_the_same_run_gives_the_same_bytes_and_no_path_of_this_machine(tmp_path: Path) -> None:
    for name in ("a", "b"):
        command = [sys.executable, "-m", "genserve.runs.export", str(RUN), str(tmp_path / name)]
        subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": "0"}, cwd=tmp_path)
    first, second = ((tmp_path / name / "model.pt").read_bytes() for name in ("a", "b"))
    assert first == second
    assert str(ROOT).encode() not in first
    assert str(Path(torch.__file__).parent).encode() not in first


@pytest.mark.parametrize("change", [{"format": 99}, {"family": "gan"}, {"sampler": "euler"}])
def test_a_contract_of_the_future_is_refused_in_one_sentence(
    exported: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    value = json.loads((exported / "model.json").read_text()) | change
    (tmp_path / "model.json").write_text(json.dumps(value))
    with pytest.raises(ValueError, match=r"model\.json") as caught:
        read_spec(tmp_path / "model.json")
    assert "\n" not in str(caught.value)


def test_a_missing_contract_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="build_archives"):
        read_spec(tmp_path / "model.json")


@pytest.mark.parametrize("name", ["energy-mnist", "energy-mnist-pcd", "energy-cifar10", "diffusion-mnist"])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_first_evaluation_of_a_loaded_model_is_every_later_one_s(
    name: str, precision: str, tmp_path: Path
) -> None:
    export(ROOT / "weights" / name, tmp_path)
    spec, model = load_model(tmp_path, torch.device("cpu"), PRECISIONS[precision])
    x = torch.randn(3, *spec.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        answers = [model(x, torch.ones(3), torch.zeros(3, dtype=torch.long)) for _ in range(3)]
    first, *later = [torch.cat([part.flatten() for part in answer]) for answer in answers]
    for answer in later:
        assert torch.equal(first, answer)


def test_what_nobody_reads_in_serving_json_is_refused(tmp_path: Path) -> None:
    """A number of steps that stands twice would be read by some and not by others."""
    for name in ("config.json", "weights.safetensors"):
        (tmp_path / name).write_bytes((ROOT / "weights/energy-mnist-pcd" / name).read_bytes())
    for serving, named in (({"walk": {"steps": 5}}, "'steps'"), ({"sampelr": "ddim"}, "'sampelr'")):
        (tmp_path / "serving.json").write_text(json.dumps(serving))
        with pytest.raises(ValueError, match=rf"serving.json .* it has an unknown key {named}"):
            spec_of(tmp_path)


@pytest.mark.parametrize(
    "directory", sorted((ROOT / "weights").glob("*/serving.json")), ids=lambda p: p.parent.name
)
def test_the_steps_that_a_server_takes_are_those_of_serving_json(directory: Path) -> None:
    spec = spec_of(directory.parent)
    setting = Setting.of(spec.defaults)
    assert setting.steps == json.loads(directory.read_text())["steps"]
    assert setting.text(spec.defaults).split(":")[1] == str(setting.steps)


def test_what_is_tuned_twice_is_refused() -> None:
    tuned = Tuned(sampler="ddim", sigmas=(9.0, 1.0))
    with pytest.raises(ValueError, match="tuned has 2 steps twice"):
        dataclasses.replace(spec_of(RUN), tuned=(tuned, dataclasses.replace(tuned, eta=0.5)))
    for sigmas in ((), (1.0, 9.0), (9.0, 0.0), (9.0, 9.0)):
        with pytest.raises(ValueError, match="must fall and be above 0"):
            Tuned(sampler="ddim", sigmas=sigmas)


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


@pytest.mark.parametrize("content", ["", '{"format": 1}', '{"format": 1, "shape": 3, "classes": []}', "[1]"])
def test_a_torn_contract_is_refused_in_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(ValueError, match=r"model\.json [^\n]*$"):
        read_spec(tmp_path / "model.json")


def test_a_full_disk_leaves_the_old_model_and_is_named(exported: Path, tmp_path: Path, full_disk) -> None:
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
