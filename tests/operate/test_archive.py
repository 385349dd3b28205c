"""Archives: the same input gives the same bytes, and a bare interpreter can import what is inside."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def build(output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "build_archives"), "--output", str(output), *more]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("store")
    done = build(output)
    assert done.returncode == 0, done.stderr
    return output / "diffusion.mar"


def test_the_same_input_gives_the_same_bytes(archive: Path, tmp_path: Path) -> None:
    assert build(tmp_path).returncode == 0
    assert (tmp_path / "diffusion.mar").read_bytes() == archive.read_bytes()


def test_an_archive_that_is_up_to_date_is_left_alone(archive: Path) -> None:
    before = archive.stat().st_mtime_ns
    assert "up to date" in build(archive.parent).stdout
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
        ('{"model": {"family": "gan"}}', "x", "there are handlers for diffusion"),
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
