"""The package as others install it: a wheel in a fresh environment, with base dependencies or all."""

import ast
import json
import os
import re
import subprocess
import sys
import venv
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import httpx
import pytest
from packaging.requirements import Requirement
from real_server import ROOT, free_ports

import genserve
from genserve.commands import __main__ as program

PARTS = ("genserve", "handlers", "training", "weights", "config.properties", "log4j2.xml", "metrics.yaml")
PARTS += ("pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout, built without a network and without touching the checkout."""
    source = tmp_path_factory.mktemp("source")
    for part in PARTS:
        (source / part).symlink_to(ROOT / part)
    build = ["-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--no-index", "."]
    subprocess.run([sys.executable, *build, "--wheel-dir", "dist"], check=True, cwd=source)
    (built,) = (source / "dist").glob("*.whl")
    return built


def installed(wheel: Path, folder: Path) -> Path:
    """Install a wheel alone into a fresh environment; return the environment's site-packages."""
    venv.create(folder, with_pip=False)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python"), "install", "--quiet"]
    subprocess.run([*pip, "--no-index", "--no-deps", "--no-compile", str(wheel)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    return site


@pytest.fixture(scope="module")
def base(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel and its base dependencies, which are links to ours."""
    folder = tmp_path_factory.mktemp("base")
    site = installed(wheel, folder)
    metadata = next(site.glob("genserve-*.dist-info/METADATA")).read_text()
    for entry in closure(re.findall(r"(?m)^Requires-Dist: (.*)$", metadata)):
        if not (site / entry.name).exists():
            (site / entry.name).symlink_to(entry)
    return folder / "bin"


@pytest.fixture(scope="module")
def full(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel and all that is installed here but genserve."""
    folder = tmp_path_factory.mktemp("full")
    site = installed(wheel, folder)
    (site / "ours.pth").write_text(str(Path(pytest.__file__).parents[1]))  # whose own .pth files are not read
    return folder / "bin"


def closure(requirements: list[str]) -> set[Path]:
    """Return the files and folders of what these requirements bring, without extras."""
    entries: set[Path] = set()
    new, known = requirements, set[str]()
    while new:
        requirement = Requirement(new.pop())
        if requirement.name in known or (requirement.marker and not requirement.marker.evaluate()):
            continue
        known.add(requirement.name)
        try:
            package = distribution(requirement.name)
        except PackageNotFoundError:  # of another platform or a torch without it
            continue
        new += package.requires or []
        tops = {Path(file.parts[0]) for file in package.files or []} - {Path(".."), Path("__pycache__")}
        entries |= {Path(str(package.locate_file(top))) for top in tops}
    return entries


def run(program: Path, *words: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program of a fresh environment, somewhere where there is no checkout."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    command = [str(program), *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=cwd, env=clean | environment
    )


def ok(done: subprocess.CompletedProcess[str]) -> str:
    """Return the output of a program that must succeed."""
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_draws_the_same_bytes_from_a_wheel_with_base_dependencies_alone(
    base: Path, tmp_path: Path
) -> None:
    for name, python in (("wheel", base / "python"), ("checkout", Path(sys.executable))):
        (tmp_path / name).mkdir()
        ok(run(python, ROOT / "examples/library.py", cwd=tmp_path / name))
    drawn = (tmp_path / "wheel/digits.png").read_bytes()
    assert drawn.startswith(b"\x89PNG")
    assert drawn == (tmp_path / "checkout/digits.png").read_bytes()


def test_the_readme_shows_the_example() -> None:
    source = (ROOT / "examples/library.py").read_text()
    assert source.partition('"""\n\n')[2] in (ROOT / "README.md").read_text()


def test_with_the_base_dependencies_a_command_names_the_extra_it_needs(base: Path, tmp_path: Path) -> None:
    listing = ok(run(base / "genserve", cwd=tmp_path))
    assert all(f"    {name} " in listing for name in program.COMMANDS)
    assert genserve.__version__ in ok(run(base / "genserve", "--version", cwd=tmp_path))
    train = run(base / "genserve", "train", "diffusion", "--help", cwd=tmp_path)
    assert "genserve train needs jsonargparse: pip install 'genserve[train]'" in train.stderr
    archive = run(base / "genserve", "archive", cwd=tmp_path)
    assert "torch-model-archiver is not installed" in archive.stderr
    assert "pip install 'genserve[serve]'" in archive.stderr
    assert run(base / "genserve", "serve", "status", cwd=tmp_path).stderr == "not running\n"


def test_a_wheel_trains_generates_evaluates_and_packs(full: Path, tmp_path: Path) -> None:
    where = run(full / "python", "-c", "import genserve; print(genserve.__file__)", cwd=tmp_path)
    assert str(full.parent) in ok(where)
    config = "training/configs/diffusion-digits.yaml"  # one that the wheel ships
    flags = ["--config", config, "--name", "mine", "--epochs", 1, "--device", "cpu", "--threads", 1]
    ok(run(full / "genserve", "train", "diffusion", *flags, cwd=tmp_path))
    assert (tmp_path / "runs/mine/weights.safetensors").is_file()
    flags = ["--num-images", 3, "--steps", 2, "--output-dir", "drawn"]
    ok(run(full / "genserve", "generate", "--run", "runs/mine", *flags, cwd=tmp_path))
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 3
    flags = ["--n", 8, "--settings", "heun:1", "--device", "cpu", "--threads", 1, "--data", "nowhere"]
    ok(run(full / "genserve", "evaluate", *flags, cwd=tmp_path))
    record = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert record["command"].startswith("genserve evaluate --n 8 ")
    flags = ["--run", "weights/diffusion-mnist", "--name", "digits"]
    ok(run(full / "genserve", "archive", *flags, cwd=tmp_path))
    build = [ROOT / "scripts/build_archives", *flags, "--output", tmp_path / "here"]
    ok(run(Path(sys.executable), *build, cwd=ROOT))
    assert (tmp_path / "model_store/digits.mar").read_bytes() == (tmp_path / "here/digits.mar").read_bytes()


@pytest.mark.server
def test_a_wheel_serves(full: Path, tmp_path: Path) -> None:
    flags = ["--run", "weights/diffusion-mnist", "--name", "digits"]
    ok(run(full / "genserve", "archive", *flags, cwd=tmp_path))
    port = free_ports(5)
    try:
        started = ok(run(full / "genserve", "serve", "start", "--port", port, cwd=tmp_path))
        assert f"on http://127.0.0.1:{port}: digits" in started
        assert (tmp_path / ".serve/logs").is_dir()
        reply = httpx.post(f"http://127.0.0.1:{port}/predictions/digits", json={"steps": 1}, timeout=60)
        assert (reply.status_code, reply.content[:4]) == (200, b"\x89PNG")
        ok(run(full / "genserve", "health", "--port", port, cwd=tmp_path))
    finally:
        stopped = run(full / "genserve", "serve", "stop", cwd=tmp_path)
    assert ok(stopped) == "stopped\n"


def test_the_names_for_type_checkers_are_those_that_are_offered() -> None:
    stub = ast.parse((ROOT / "genserve/__init__.pyi").read_text())
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    assert {alias.name: node.module for node in imports for alias in node.names} == genserve._MODULES
    for name, module in genserve._MODULES.items():
        assert getattr(genserve, name) is getattr(import_module(module), name)
    with pytest.raises(AttributeError, match="no attribute 'diffusion'"):
        genserve.diffusion  # noqa: B018


def test_importing_genserve_imports_no_torch() -> None:
    code = "import genserve, sys; assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules); genserve.ddim"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_folder_with_code_is_packed() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    packed = set(re.findall(r'^    "(genserve[.\w]*)",$', text, re.MULTILINE))
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "genserve").rglob("*.py")}
    assert packed == {".".join(folder.parts) for folder in folders} | {"genserve.shipped"}


def test_extras_bring_what_commands_say_they_bring() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    names = {"sklearn": "scikit-learn"}
    for package, extra in program.EXTRAS.items():
        listed = re.search(rf"(?ms)^{extra} = \[(.*?)^\]", text)
        assert listed
        assert f'"{names.get(package, package.replace("_", "-"))}' in listed[1]
