"""Load a handler as TorchServe does: as a file, not as a module of a package."""

import importlib.util
from pathlib import Path
from typing import Any

import torch
from real_server import ROOT

from genserve.runs.export import export


def diffusion_handler(
    folder: Path, *, continuous: bool, budget: int, lanes: int, precision: str = "auto"
) -> Any:
    """Return the handler of the shipped diffusion model, loaded from an archive's files in `folder`."""
    handler = new("diffusion_handler", "DiffusionHandler")
    export(ROOT / "weights" / "diffusion-mnist", folder)
    handler.continuous = continuous
    handler.load(folder, torch.device("cpu"), budget, lanes, precision=precision)
    return handler


def energy_handler(folder: Path, run: str = "energy-mnist", *, precision: str = "auto") -> Any:
    """Return the handler of a shipped energy, loaded from an archive's files in `folder`."""
    handler = new("energy_handler", "EnergyHandler")
    export(ROOT / "weights" / run, folder)
    handler.load(folder, torch.device("cpu"), budget=8, lanes=2, precision=precision)
    return handler


def new(name: str, kind: str) -> Any:
    """Return a handler of a file in handlers/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "handlers" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, kind)()
