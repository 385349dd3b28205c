"""A run directory, the unit of truth: what was trained, how, and what came out.

    config.json          the whole configuration and what the model must know of its data
    weights.safetensors  the EMA weights
    state.pt             everything a resumed run needs (not shipped)
    metrics.jsonl        one JSON object a line
    samples.png          a picture

Every write goes to a neighbour first and is renamed into place: a reader sees the old file or the new one,
never half of one.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from genserve.contrastive import ConvEnergy
from genserve.diffusion import Denoiser
from genserve.energy import ResidualEnergy
from genserve.unet import UNet

FORMAT = 1  # of config.json


def write_atomic(path: Path, data: bytes) -> None:
    """Write a whole file or nothing."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON that a person can read; NaN is refused."""
    write_atomic(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def write_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Write tensors as safetensors."""
    write_atomic(path, safetensors.torch.save({k: v.contiguous().cpu() for k, v in weights.items()}))


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What it takes to build a run's network again; `model` in config.json."""

    family: str  # "diffusion" or "energy"
    shape: tuple[int, int, int]  # (C, H, W)
    classes: tuple[str, ...]  # () for none
    mean: float  # of the training pixels, in [-1, 1]
    std: float
    sigma_min: float  # the noise levels between which it samples well
    sigma_max: float
    net: dict[str, Any]  # the arguments of the network
    energy: str = ""  # of the family energy: "residual" of a UNet, or "plain", which knows no noise levels

    def build(self) -> Denoiser | ResidualEnergy | ConvEnergy:
        """Return the denoiser or the energy, freshly initialised.

        Raises:
            ValueError: there is no such family or energy.
        """
        match self.family, self.energy:
            case "diffusion", "":
                return self._denoiser()
            case "energy", "residual":
                return ResidualEnergy(self._denoiser())
            case "energy", "plain":
                return ConvEnergy(self.shape, **self.net)
        raise ValueError(f"family {self.family!r} with energy {self.energy!r} is none this version can build")

    def _denoiser(self) -> Denoiser:
        return Denoiser(UNet(self.shape, len(self.classes), **self.net), self.mean, self.std)


def read_config(directory: Path) -> dict[str, Any]:
    """Return config.json of a run.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is of a format this version does not know.
    """
    path = directory / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{directory} is no run directory: it has no config.json")
    config: dict[str, Any] = json.loads(path.read_text())
    if config.get("format") != FORMAT:
        raise ValueError(f"{path} has format {config.get('format')!r}; this version reads {FORMAT}")
    return config


def model_config(directory: Path) -> ModelConfig:
    """Return the `model` part of a run's config.json; raises as `read_config`."""
    model = read_config(directory)["model"]
    return ModelConfig(**model | {"shape": tuple(model["shape"]), "classes": tuple(model["classes"])})


def load_model(directory: Path) -> Denoiser | ResidualEnergy | ConvEnergy:
    """Return a run's EMA denoiser or energy, in eval mode, frozen, on the CPU; raises as `read_config`."""
    model = model_config(directory).build()
    model.load_state_dict(safetensors.torch.load_file(directory / "weights.safetensors"))
    return model.eval().requires_grad_(False)


def load_denoiser(directory: Path) -> Denoiser:
    """Return a run's denoiser as `load_model`.

    Raises:
        ValueError: the run is of another family.
    """
    model = load_model(directory)
    if not isinstance(model, Denoiser):
        raise ValueError(f"{directory} holds no diffusion model")
    return model


def read_metrics(directory: Path, up_to: int | None = None) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl, those up to a step; a line cut short by a kill is left out."""
    path = directory / "metrics.jsonl"
    records = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if up_to is None or record["step"] <= up_to:
            records.append(record)
    return records


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint of tensors, numbers and containers of them."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        torch.save(state, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
