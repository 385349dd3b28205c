"""Archives: the same input gives the same bytes, and a bare interpreter can import what is inside."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from genserve.families import SERVED
from genserve.operate.archive import SHIPPED, USUAL, place

ROOT = Path(__file__).parent.parent.parent


def build(output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "build_archives"), "--output", str(output), *more]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("store")
    done = build(output, "diffusion")
    assert done.returncode == 0, done.stderr
    return output / "diffusion.mar"


def test_the_same_input_gives_the_same_bytes(archive: Path, tmp_path: Path) -> None:
    assert build(tmp_path, "diffusion").returncode == 0
    assert (tmp_path / "diffusion.mar").read_bytes() == archive.read_bytes()


def test_an_archive_that_is_up_to_date_is_left_alone(archive: Path) -> None:
    before = archive.stat().st_mtime_ns
    assert "up to date" in build(archive.parent, "diffusion").stdout
    assert archive.stat().st_mtime_ns == before


def test_it_carries_what_its_handler_imports_and_nothing_of_training(archive: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        modules = {name for name in opened.namelist() if name.startswith("genserve/")}
    names = ("__init__", "serving/__init__", "serving/service", "serving/requests/diffusion")
    assert modules >= {f"genserve/{name}.py" for name in names}
    assert not {name for name in modules if name.split("/")[1] in {"data", "drawing", "learning", "measure"}}
    assert not {name for name in modules if "energy" in name}


def test_it_carries_exactly_the_modules_that_its_handler_imports(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tmp_path)
        carried = {name for name in opened.namelist() if name.startswith("genserve/")}
    program = (
        "import pathlib, sys; sys.path.insert(0, sys.argv[1]); import diffusion_handler\n"
        "for name, module in sorted(sys.modules.items()):\n"
        "    if name.split('.')[0] == 'genserve':\n"
        "        print(pathlib.Path(module.__file__).relative_to(sys.argv[1]).as_posix())\n"
    )
    command = [sys.executable, "-I", "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == carried


def test_its_handler_imports_from_the_archive_alone(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tmp_path)
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import diffusion_handler, genserve, inspect\n"
        "assert genserve.__file__.startswith(sys.argv[1]), genserve.__file__\n"
        "classes = inspect.getmembers(diffusion_handler, inspect.isclass)\n"
        "own = [name for name, c in classes if c.__module__ == 'diffusion_handler']\n"
        "assert len(own) == 1, own  # TorchServe takes a handler file with exactly one class\n"
        "heavy = {'torchvision', 'sklearn', 'jsonargparse', 'pytest'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("config", "name", "message"),
    [
        (None, "x", "it has no config.json and no weights.safetensors"),
        ("{}", "x", "names no family"),
        ('{"model": {"family": "classifier"}}', "x", "there are handlers for diffusion"),
        ('{"format": 1, "model": {"family": "diffusion"}}', "x", "config.json is not the configuration of a"),
        ("{}", "a b", "--name must be letters"),
    ],
)
def test_what_is_no_run_is_one_sentence(tmp_path: Path, config: str | None, name: str, message: str) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
        (tmp_path / "weights.safetensors").write_bytes(b"")
    done = build(tmp_path / "store", "--run", str(tmp_path), "--name", name)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_version_that_no_address_and_no_label_takes_is_refused(tmp_path: Path) -> None:
    done = build(tmp_path / "store", "--version", "1,0")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "--version must be letters" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "there is no shipped run 'nothing' (allowed: diffusion, "),
        (["energy", "--all"], "names, --all and --run: one of them at a time"),
        (["--run", "weights/energy-mnist", "energy"], "names, --all and --run: one of them at a time"),
        (["energy", "--name", "mine"], "--name is of one --run"),
    ],
)
def test_what_to_build_is_said_in_one_form(tmp_path: Path, words: list[str], message: str) -> None:
    done = build(tmp_path / "store", *words)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "store").exists()


def test_shipped_runs_are_built_by_name(tmp_path: Path) -> None:
    done = build(tmp_path, "energy-pcd", "--backend", "torchscript")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["energy-pcd.mar"]


def test_an_archive_never_takes_the_place_of_another_version(tmp_path: Path) -> None:
    name, fast = "energy-pcd", ("--backend", "torchscript")
    assert build(tmp_path, name, *fast, "--version", "2.0").returncode == 0
    before = (tmp_path / f"{name}.mar").read_bytes()
    done = build(tmp_path, name, *fast, "--version", "3.0")
    assert done.stdout.startswith(f"{name}-3.0.mar: "), done.stderr
    assert (tmp_path / f"{name}.mar").read_bytes() == before
    for number, file in (("2.0", f"{name}.mar"), ("3.0", f"{name}-3.0.mar")):
        assert build(tmp_path, name, *fast, "--version", number).stdout == f"{file}: up to date\n"
    (tmp_path / f"{name}.mar").unlink()  # it was rolled over
    assert place(tmp_path, name, "3.0").name == f"{name}-3.0.mar"
    assert place(tmp_path, name, "4.0").name == f"{name}.mar"


def test_every_run_that_can_be_served_has_a_name() -> None:
    """Those that measure quality, and none else, have no handler."""
    served = {ROOT / path for path in SHIPPED.values()}
    assert set(USUAL) <= SHIPPED.keys()
    for config in (ROOT / "weights").glob("*/config.json"):
        family = json.loads(config.read_text())["model"]["family"]
        assert (config.parent in served) == (family in SERVED), config
