"""Load a handler as TorchServe does: a file, not a module of a package."""

import importlib.util
from pathlib import Path
from typing import Any

import torch
from real_server import ROOT

from genserve.export import export


def diffusion_handler(folder: Path, *, continuous: bool, budget: int, lanes: int) -> Any:
    """Return the handler of the shipped model, loaded from an archive's files in `folder`."""
    export(ROOT / "weights" / "diffusion-mnist", folder)
    found = importlib.util.spec_from_file_location(
        "diffusion_handler", ROOT / "handlers" / "diffusion_handler.py"
    )
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    handler = module.DiffusionHandler()
    handler.continuous = continuous
    handler.load(folder, torch.device("cpu"), budget, lanes)
    return handler
