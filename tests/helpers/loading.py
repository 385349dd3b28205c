"""Shipped models as a server has them: exported, loaded, ready to answer."""

import importlib.util
from pathlib import Path
from typing import Any

import torch
from real_server import ROOT

from genserve.families import FAMILIES, load
from genserve.runs.directory import config_of
from genserve.runs.export import export
from genserve.serving.hosts.torchserve import Handler
from genserve.serving.joined import JoiningService
from genserve.serving.service import Running, loaded


def running(**more: Any) -> Running:
    """Return how tests run a model: on two lanes of a CPU, in what it is fast at."""
    usual: dict[str, Any] = {"precision": "auto", "lanes": 2, "budget": 8}
    return Running(device=torch.device("cpu"), **usual | more)


def service(folder: Path, run: str | Path = "diffusion-mnist", **more: Any) -> JoiningService:
    """Return the service of a run, or of a shipped one by its name; its archive's files go to `folder`."""
    directory = ROOT / "weights" / run
    export(directory, folder)
    kind = load(FAMILIES[config_of(directory).family].request)
    return loaded(JoiningService, folder, kind, running(**more))


def handler(folder: Path, **more: Any) -> Handler:
    """Return the handler of the shipped diffusion model, loaded from an archive's files in `folder`."""
    handler = new("diffusion_handler", "DiffusionHandler")
    export(ROOT / "weights" / "diffusion-mnist", folder)
    handler.load(folder, running(**more))
    return handler


def new(name: str, kind: str) -> Handler:
    """Return a handler of a file in handlers/, which is no module of a package, loaded as TorchServe does."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "handlers" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    result = getattr(module, kind)()
    assert isinstance(result, Handler)
    return result
