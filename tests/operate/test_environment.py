"""Which Python does the work, and what is missing in it."""

import subprocess
import sys
from pathlib import Path

import pytest
from real_server import ROOT

from genserve.operate.environment import interpreter, versions


def interpreter_of(python: Path, root: Path) -> subprocess.CompletedProcess[str]:
    """Ask a Python that has only its standard library which interpreter a checkout would use."""
    code = "import sys; sys.path.insert(0, sys.argv[1])\n"
    code += "from genserve.operate.environment import interpreter; print(interpreter())"
    return subprocess.run(
        [str(python), "-I", "-S", "-c", code, str(root)], capture_output=True, text=True, check=False
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout in which nothing is installed."""
    copied = tmp_path / "copy/genserve"
    (copied / "operate").mkdir(parents=True)
    for name in ("__init__.py", "places.py", "operate/__init__.py", "operate/environment.py"):
        (copied / name).write_bytes((ROOT / "genserve" / name).read_bytes())
    return copied.parent


def test_where_genserve_is_installed_the_running_python_works() -> None:
    assert interpreter() == Path(sys.executable)


def test_a_python_without_genserve_uses_the_checkout_s_own(checkout: Path) -> None:
    (checkout / ".venv/bin").mkdir(parents=True)
    (checkout / ".venv/bin/python").touch()
    assert interpreter_of(Path(sys.executable), checkout).stdout.strip() == str(checkout / ".venv/bin/python")


def test_installed_nowhere_is_one_sentence(checkout: Path) -> None:
    done = interpreter_of(Path(sys.executable), checkout)
    assert (done.returncode, done.stderr) == (1, "genserve is not installed: run ./scripts/install first\n")


def test_what_is_missing_is_named() -> None:
    assert len(versions(Path(sys.executable), "torch", "numpy")) == 2
    with pytest.raises(SystemExit, match=r"no-such-thing is not installed for .*: run \./scripts/install"):
        versions(Path(sys.executable), "no-such-thing")
