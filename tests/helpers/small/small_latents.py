"""A small untrained GAN and VAE, exported as an archive has them, and their networks."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from genserve.families import FAMILIES, load
from genserve.files import write_json
from genserve.runs.directory import FORMAT, load_model
from genserve.runs.export import export
from genserve.runs.tensors import write_weights
from genserve.serving.joined import JoiningService
from genserve.serving.service import Running, loaded

CLASSES = tuple("0123456789")
NETS: dict[str, dict[str, Any]] = {
    "gan": {"z_dim": 8, "channels": [8, 4]},
    "vae": {"z_dim": 6, "channels": [8, 4], "hidden": 16, "couplings": 2, "coupling_hidden": 16},
}


def exported(folder: Path, family: str, classes: tuple[str, ...] = CLASSES, **serving: Any) -> Path:
    """Write a run and export it; return the folder of the exported files, inside the run.

    Args:
        serving: what its serving.json says.
    """
    run = folder / family
    run.mkdir()
    model = {"family": family, "shape": [1, 28, 28], "classes": list(classes), "net": NETS[family]}
    write_json(run / "config.json", {"format": FORMAT, "model": model})
    if serving:
        write_json(run / "serving.json", serving)
    torch.manual_seed(0)
    config = load(FAMILIES[family].config)
    network: nn.Module = config(family=family, shape=(1, 28, 28), classes=classes, net=NETS[family]).build()
    weights = network.state_dict()
    for value in weights.values():  # a flow begins as the identity, a norm without its class
        if value.is_floating_point() and value.ndim > 1:
            value += 0.05 * torch.randn(value.shape)
    write_weights(run / "weights.safetensors", weights)
    export(run, run / "exported")
    return run / "exported"


def served(directory: Path, family: str, budget: int = 8) -> JoiningService:
    """Return the service of exported files."""
    running = Running(device=torch.device("cpu"), budget=budget, precision="auto")
    service = loaded(JoiningService, directory, load(FAMILIES[family].request), running)
    assert isinstance(service, JoiningService)
    return service


def network(directory: Path) -> Any:
    """Return the network that exported files were made from."""
    return load_model(directory.parent)
