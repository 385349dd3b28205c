"""What it takes to build a run's network again."""

from dataclasses import dataclass
from typing import Any

from genserve.families import FAMILIES, Family
from genserve.models.contrastive import ConvEnergy
from genserve.models.denoiser import Denoiser
from genserve.models.energy import ResidualEnergy
from genserve.models.unet import UNet


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

    @property
    def kind(self) -> Family:
        """The row of its family."""
        return FAMILIES[self.family]

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
