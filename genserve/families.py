"""The families of models, by name: everything that differs between them is in this table or behind it.

What a row names is a dotted path, so that reading the table imports nothing. A new family is a row, and the
files that the row names.
"""

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Network:
    """One kind of network in a family.

    Args:
        build: path of the function that takes the configuration and returns the network, freshly initialised.
        one_level: it knows no noise levels; Langevin chains are part of its training.
        serving: what it is served with if its serving.json does not say otherwise; if it has no `steps`, they
            are those of its chains.
    """

    build: str
    one_level: bool = False
    serving: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Family:
    """A row of the table.

    Args:
        config: path of the class of `model` in config.json; its `build` returns the network.
        networks: by the `energy` of ModelConfig, "" for the only one; {} if the configuration builds its own.
        slopes: a model answers with energies and their gradients (Slope), else with x_0.
        guided: guidance is possible, if the model has classes.
        request: path of what a client may ask; "" if the family is not served.
        handler: file of the handler that an archive carries, and the class in it.
    """

    config: str
    networks: dict[str, Network] = field(default_factory=dict)
    slopes: bool = False
    guided: bool = False
    request: str = ""
    handler: tuple[str, str] = ("", "")


FAMILIES = {
    "diffusion": Family(
        config="genserve.models.config.ModelConfig",
        networks={
            "": Network(
                build="genserve.models.denoiser.denoiser_of", serving={"sampler": "dpmpp_2m", "steps": 18}
            )
        },
        guided=True,
        request="genserve.serving.requests.diffusion.DiffusionRequest",
        handler=("handlers/diffusion_handler.py", "DiffusionHandler"),
    ),
    "energy": Family(
        config="genserve.models.config.ModelConfig",
        networks={
            "residual": Network(
                build="genserve.models.energy.residual_energy_of",
                serving={"sampler": "ddim", "eta": 1.0, "steps": 25},
            ),
            "plain": Network(
                build="genserve.models.contrastive.conv_energy_of",
                one_level=True,
                serving={"sampler": "langevin"},
            ),
        },
        slopes=True,
        request="genserve.serving.requests.energy.EnergyRequest",
        handler=("handlers/energy_handler.py", "EnergyHandler"),
    ),
    "classifier": Family(config="genserve.models.classifier.ClassifierConfig"),
}
SERVED = tuple(name for name, family in FAMILIES.items() if family.request)


def load(path: str) -> Any:
    """Return what a dotted path names."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)
