"""Small denoisers and energies whose every weight is drawn: none begins silent, as untrained ones do."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genserve.files import write_json
from genserve.models.config import ModelConfig
from genserve.models.contrastive import ChainConfig
from genserve.runs.directory import FORMAT
from genserve.runs.tensors import write_weights
from genserve.sampling.samplers import Query

SHAPE = (1, 8, 8)
CLASSES = ("dark", "light")
UNET: dict[str, Any] = {"patch": 2, "channels": (32, 48), "attention": (2,), "heads": 2}
CONV: dict[str, Any] = {"channels": (8, 16)}
KINDS = ("", "residual", "plain")  # by the `energy` of ModelConfig; "" is the denoiser


def config_of(energy: str = "") -> ModelConfig:
    """Return the configuration of a denoiser, or of an energy of this kind."""
    plain = energy == "plain"
    return ModelConfig(
        family="energy" if energy else "diffusion",
        shape=SHAPE,
        classes=() if plain else CLASSES,
        mean=-0.3,
        std=0.6,
        sigma_min=1.0 if plain else 0.002,
        sigma_max=1.0 if plain else 80.0,
        net=CONV if plain else UNET,
        energy=energy,
    )


def network(energy: str = "", seed: int = 0) -> nn.Module:
    """Return the network of `config_of`, its weights drawn, to be evaluated."""
    network = config_of(energy).build()
    rng = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        of_a_norm = tensor.ndim == 1 and name.endswith("weight")
        scale = tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.2
        tensor.copy_(of_a_norm + scale * torch.randn(tensor.shape, generator=rng))
    return network.eval().requires_grad_(False)


def write_run(directory: Path, energy: str = "") -> Path:
    """Write the network of `config_of` as a run, which draws in few steps; return its directory."""
    directory.mkdir(parents=True)
    model = {name: value for name, value in asdict(config_of(energy)).items() if value != ""}
    more: dict[str, Any] = (
        {"train": {"langevin": asdict(ChainConfig(final_steps=4))}} if energy == "plain" else {}
    )
    write_json(directory / "config.json", {"format": FORMAT, "model": model, **more})
    write_json(directory / "serving.json", {"steps": 4})
    write_weights(directory / "weights.safetensors", network(energy).state_dict())
    return directory


def question(n: int, seed: int = 0, shape: tuple[int, ...] = SHAPE, n_classes: int = len(CLASSES)) -> Query:
    """Return n noisy images at as many levels, of all classes and of none."""
    rng = torch.Generator().manual_seed(seed)
    sigma = torch.logspace(-2, 1.5, n)[torch.randperm(n, generator=rng)]
    x: Tensor = 0.6 * torch.randn(n, *shape, generator=rng)
    x = x + sigma.view(-1, 1, 1, 1) * torch.randn(n, *shape, generator=rng)
    return Query(x, sigma, torch.randint(n_classes + 1, (n,), generator=rng))
