"""The configuration from which the network of a generator is built again."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import nn

from genserve.families import FAMILIES, Family, Network, load


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The configuration of a denoiser or an energy; `model` in config.json."""

    family: str  # "diffusion" or "energy"
    shape: tuple[int, int, int]  # (C, H, W)
    classes: tuple[str, ...]  # () for none
    mean: float  # of the training pixels, in [-1, 1]
    std: float
    sigma_min: float  # the noise levels between which it samples well
    sigma_max: float
    net: dict[str, Any]  # the arguments of the network
    energy: str = ""  # of the family energy: "residual" of a UNet, or "plain", which knows no noise levels

    @property
    def kind(self) -> Family:
        """The row of its family."""
        return FAMILIES[self.family]

    @property
    def network(self) -> Network:
        """The row of its network.

        Raises:
            ValueError: there is no such family or energy.
        """
        networks = FAMILIES[self.family].networks if self.family in FAMILIES else {}
        if self.energy not in networks:
            raise ValueError(
                f"family {self.family!r} with energy {self.energy!r} is none this version can build"
            )
        return networks[self.energy]

    def build(self) -> nn.Module:
        """Return the denoiser or the energy, freshly initialised; raises as `network`."""
        network: nn.Module = load(self.network.build)(self)
        return network


@dataclass(frozen=True, kw_only=True)
class OnceConfig(ABC):
    """The configuration of a model that draws an image from noise in one evaluation; `model` in config.json.

    Its network takes noise (B, z_dim) and classes (B,), 0 for a model without, and returns x (B, C, H, W).
    """

    family: str
    shape: tuple[int, int, int]  # (C, H, W)
    classes: tuple[str, ...]  # () for none
    net: dict[str, Any]  # the arguments of the network, z_dim among them

    @property
    def z_dim(self) -> int:
        """The number of dimensions of the noise."""
        return int(self.net["z_dim"])

    @abstractmethod
    def build(self) -> nn.Module:
        """Return the network, freshly initialised."""
