"""Programs of this project: training as a user starts it, scripts imported to save the time of a process."""

import importlib.util
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from real_server import ROOT

from genserve import run


def imported(path: str) -> ModuleType:
    """Import a program by its path; starting it anew for every test would be all that the tests wait for."""
    loader = SourceFileLoader(Path(path).stem, str(ROOT / path))  # programs may lack the ending .py
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def start(
    path: Path, settings: dict[str, Any], directory: Path, name: str, *flags: str, ranks: int = 1, **more: Any
) -> subprocess.Popen[str]:
    """Start a program in the background; its run goes to DIRECTORY/runs/NAME."""
    config = directory / f"{name}.yaml"
    config.write_text(yaml.safe_dump(settings | {"name": name, "output": str(directory / "runs")} | more))
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command = [sys.executable, *(torchrun if ranks > 1 else []), str(path), "--config", str(config), *flags]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=directory, **pipes)


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a program that must succeed and return what it said."""
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


def fail(process: subprocess.Popen[str]) -> str:
    """Wait for a program that must fail and return what it said."""
    output, _ = process.communicate()
    assert process.returncode not in (0, None), output
    return output


def curve(directory: Path, name: str) -> list[dict[str, float]]:
    """Return the metrics of a run, apart from the speed, which no two runs share."""
    records = run.read_metrics(directory / "runs" / name)
    return [{key: value for key, value in record.items() if key != "images_per_s"} for record in records]
