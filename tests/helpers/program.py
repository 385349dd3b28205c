"""Run programs of this project: training as a user starts it, scripts imported, without a new process."""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from real_server import ROOT

from genserve.runs.directory import read_metrics

_STARTED: list[subprocess.Popen[str]] = []  # by `start`, in the current test


def imported(path: str) -> ModuleType:
    """Import a program by its path; a new process for every test would take most of the tests' time."""
    loader = SourceFileLoader(Path(path).stem, str(ROOT / path))  # programs may lack the ending .py
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@contextlib.contextmanager
def background(command: Sequence[object], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Run a command in the background and kill it when the block ends, also by an error.

    Args:
        options: of subprocess.Popen.
    """
    with subprocess.Popen([str(word) for word in command], start_new_session=True, **options) as process:
        try:
            yield process
        finally:
            kill(process)


def kill(process: subprocess.Popen[Any]) -> None:
    """Kill a session leader and its children, unless it has ended."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def start(
    path: Path, settings: dict[str, Any], directory: Path, name: str, *flags: str, ranks: int = 1, **more: Any
) -> subprocess.Popen[str]:
    """Start a program in the background, at most until the test ends; it writes DIRECTORY/runs/NAME."""
    config = directory / f"{name}.yaml"
    config.write_text(yaml.safe_dump(settings | {"name": name, "output": str(directory / "runs")} | more))
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command = [sys.executable, *(torchrun if ranks > 1 else []), str(path), "--config", str(config), *flags]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, cwd=directory, start_new_session=True, **pipes)
    _STARTED.append(process)
    return process


def end_all() -> None:
    """Kill the programs of `start` that still run."""
    while _STARTED:
        process = _STARTED.pop()
        kill(process)
        process.wait()
        if process.stdout:
            process.stdout.close()


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a program that must succeed and return its output."""
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


def fail(process: subprocess.Popen[str]) -> str:
    """Wait for a program that must fail and return its output."""
    output, _ = process.communicate()
    assert process.returncode not in (0, None), output
    return output


def curve(directory: Path, name: str) -> list[dict[str, float]]:
    """Return the metrics of a run without its speed, which differs in every run."""
    records = read_metrics(directory / "runs" / name)
    return [{key: value for key, value in record.items() if key != "images_per_s"} for record in records]
