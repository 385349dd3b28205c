"""What evaluates an archive's network: as the flags say, or what suits the family and is installed."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from real_server import ROOT
from small_networks import write_run

from genserve.backends import AUTO, OPENVINO, TORCHSCRIPT
from genserve.families import FAMILIES
from genserve.operate import archive
from genserve.operate.building.backends import Evaluated, evaluated
from genserve.operate.environment import has

PLAIN = {"compiled.xml", "compiled.bin", "compiled.json", "compiled.safetensors"}
QUANTIZED = {"compiled-int8.xml", "compiled-int8.bin", "compiled-int8.json", "compiled.safetensors"}
GAN = str(ROOT / "weights" / "gan-mnist")


def build(output: Path, run: str | Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "build_archives"), "--output", str(output)]
    command += ["--run", str(run), "--name", "small", *more]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def built(output: Path, run: str | Path, *more: str) -> tuple[str, dict[str, str], set[str]]:
    """Build an archive; return the line about it, what its handler is told, and its compiled files."""
    done = build(output, run, *more)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(output / "small.mar") as opened:
        config = yaml.safe_load(
            opened.read(json.loads(opened.read("MAR-INF/MANIFEST.json"))["model"]["configFile"])
        )
        names = {name for name in opened.namelist() if name.startswith("compiled")}
    return done.stdout.strip(), config["handler"], names


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small denoiser."""
    return write_run(tmp_path_factory.mktemp("runs") / "run")


def test_a_denoiser_gets_openvino_and_another_backend_makes_another_archive(
    run: Path, tmp_path: Path
) -> None:
    line, handler, names = built(tmp_path, run)
    assert line.endswith(", continuous, openvino")
    assert (handler["backend"], handler["precision"], names) == ("openvino", "auto", PLAIN)
    assert (
        built(tmp_path, run)[0] == built(tmp_path, run, "--backend", "openvino")[0] == "small.mar: up to date"
    )
    for flags, backend, precision, files in (
        (["--backend", "torchscript"], "torchscript", "auto", set()),
        (["--precision", "int8"], "openvino", "int8", QUANTIZED),
        (["--precision", "fp32"], "openvino", "fp32", PLAIN),
    ):
        line, handler, names = built(tmp_path, run, *flags)
        assert line.endswith(f", continuous, {backend}")
        assert (handler["backend"], handler["precision"], names) == (backend, precision, files)
        assert built(tmp_path, run, *flags)[0] == "small.mar: up to date"


def test_a_model_of_another_family_gets_torchscript(tmp_path: Path) -> None:
    line, handler, names = built(tmp_path, GAN, "--mode", "batched")
    assert line.endswith(", batched, torchscript")
    assert (handler["backend"], handler["precision"], names) == ("torchscript", "auto", set())
    assert built(tmp_path, GAN, "--mode", "batched", "--backend", "torchscript")[0] == "small.mar: up to date"


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("gan-mnist", ["--backend", "openvino"], "family gan; openvino is for diffusion and energy"),
        ("gan-mnist", ["--precision", "int8"], "family gan; int8 is for diffusion"),
        ("energy-mnist", ["--precision", "int8"], "family energy; int8 is for diffusion"),
        ("energy-mnist-pcd", ["--precision", "int8", "--backend", "openvino"], "int8 is for diffusion"),
    ],
)
def test_what_a_family_cannot_have_is_one_plain_line(
    name: str, flags: list[str], message: str, tmp_path: Path
) -> None:
    done = build(tmp_path, ROOT / "weights" / name, *flags)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert done.stderr.rstrip().endswith(message)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--backend", "torchscript", "--precision", "int8"], "--precision int8 is of --backend openvino"),
        (["--backend", "onnx"], "invalid choice: 'onnx'"),
        (["--precision", "fp16"], "invalid choice: 'fp16'"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(flags: list[str], message: str, tmp_path: Path) -> None:
    done = build(tmp_path / "store", ROOT / "weights" / "diffusion-mnist", *flags)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "store").exists()


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python of an environment in which nothing is installed."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder / "bin" / "python"


@pytest.mark.parametrize("family", FAMILIES)
def test_where_openvino_is_not_installed_every_network_gets_torchscript(family: str, bare: Path) -> None:
    assert not has(bare, "openvino")
    chosen = evaluated(Path("run"), family, AUTO, "auto", bare)
    assert chosen == Evaluated(TORCHSCRIPT, "auto")


@pytest.mark.parametrize("family", FAMILIES)
def test_where_it_is_installed_the_families_it_compiles_get_it(family: str) -> None:
    chosen = evaluated(Path("run"), family, AUTO, "bf16", Path(sys.executable))
    compiled = family in ("diffusion", "energy")
    assert (chosen.backend, chosen.precision) == (OPENVINO if compiled else TORCHSCRIPT, "bf16")
    assert len(chosen.made_by) == compiled  # its version, which is part of what an archive is made from


def test_what_is_asked_for_and_not_installed_is_said_with_its_remedy(bare: Path) -> None:
    for backend, precision, message in (
        (OPENVINO, "auto", "openvino is not installed for .*: run ./scripts/install$"),
        (AUTO, "int8", "openvino and nncf are not installed for .*: run ./scripts/install --dev$"),
    ):
        with pytest.raises(SystemExit, match=message):
            evaluated(Path("run"), "diffusion", backend, precision, bare)


def test_nothing_is_built_where_one_of_several_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="gan"):
        archive.run(["diffusion", "gan", "--precision", "int8", "--output", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []
