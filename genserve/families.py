"""The families of models, by name: everything that differs between them is in this table or behind it.

What a row names is given as a dotted path, so that reading the table imports nothing. A new family is a row,
and the files that the row names.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Family:
    """A row of the table.

    Args:
        network: the class of its networks by the `energy` of ModelConfig, "" for the only one.
        loss: by the recipe of its training program, "" for the only one.
        slopes: a model answers with energies and their gradients (Slope), else with x_0.
        guided: guidance is possible, if the model has classes.
        request: what a client may ask.
        handler: file of the handler that an archive carries, and the class in it.
    """

    network: dict[str, str]
    loss: dict[str, str]
    slopes: bool = False
    guided: bool = False
    request: str
    handler: tuple[str, str]


FAMILIES = {
    "diffusion": Family(
        network={"": "genserve.models.denoiser.Denoiser"},
        loss={"": "genserve.models.denoiser.denoising_loss"},
        guided=True,
        request="genserve.serving.requests.diffusion.DiffusionRequest",
        handler=("handlers/diffusion_handler.py", "DiffusionHandler"),
    ),
    "energy": Family(
        network={
            "residual": "genserve.models.energy.ResidualEnergy",
            "plain": "genserve.models.contrastive.ConvEnergy",
        },
        loss={
            "score_matching": "genserve.models.denoiser.denoising_loss",
            "contrastive": "genserve.models.contrastive.contrastive_loss",
        },
        slopes=True,
        request="genserve.serving.requests.energy.EnergyRequest",
        handler=("handlers/energy_handler.py", "EnergyHandler"),
    ),
}


def load(path: str) -> Any:
    """Return what a dotted path names."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)
