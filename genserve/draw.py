"""Many images of one model: a setting in words, classes in fair shares, batch by batch."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genserve import images
from genserve.diffusion import SAMPLERS, evaluations, guided, run, sampler_named
from genserve.metrics import Chunks
from genserve.noise import Streams
from genserve.run import ModelConfig
from genserve.schedules import levels

KEYS = {"schedule": str, "guidance": float, "eta": float, "sigma_min": float, "sigma_max": float}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How images are drawn."""

    sampler: str
    steps: int
    schedule: str = "karras"
    guidance: float = 1.0
    eta: float = 0.0
    sigma_min: float
    sigma_max: float

    @property
    def sigmas(self) -> Tensor:
        """The noise levels, (steps + 1,)."""
        return levels(self.schedule, self.steps, self.sigma_min, self.sigma_max)

    @property
    def nfe(self) -> int:
        """Network evaluations an image."""
        return evaluations(self.sampler, self.steps) * (2 if self.guidance != 1 else 1)


def setting(text: str, model: ModelConfig) -> Setting:
    """Return what SAMPLER:STEPS[:KEY=VALUE]... names, like dpmpp_2m:12 or ddim:50:schedule=cosine:eta=1.

    Where it names no noise levels, they are the model's.

    Raises:
        ValueError: it names nothing that this model can do.
    """
    sampler, _, rest = text.partition(":")
    steps, *pairs = rest.split(":")
    words = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    known = len(words) == len(pairs) and words.keys() <= KEYS.keys()
    if sampler not in SAMPLERS or not steps.isdecimal() or not known:
        raise ValueError(
            f"a setting is SAMPLER:STEPS[:KEY=VALUE]..., SAMPLER one of {', '.join(SAMPLERS)}, KEY one of "
            f"{', '.join(KEYS)}; got {text!r}"
        )
    named: dict[str, Any] = {"sigma_min": model.sigma_min, "sigma_max": model.sigma_max}
    named |= {key: KEYS[key](value) for key, value in words.items()}
    found = Setting(sampler=sampler, steps=int(steps), **named)
    if found.eta and sampler != "ddim":
        raise ValueError(f"eta is ddim's alone, got {text!r}")
    if found.guidance != 1 and not model.classes:
        raise ValueError(f"guidance needs a model with classes, got {text!r}")
    _ = found.sigmas  # refuses a schedule that does not exist or has fewer levels
    return found


def fair_classes(n: int, counts: Tensor) -> Tensor:
    """Return n classes in the proportion of counts, (n_classes,); image k's is the same whatever n is.

    Any stretch of the multiples of the golden ratio, modulo 1, lies evenly (equidistribution, Weyl 1916).
    """
    u = torch.arange(1, n + 1, dtype=torch.float64) * ((5**0.5 - 1) / 2) % 1
    shares = counts.double().cumsum(0) / counts.sum()
    return torch.searchsorted(shares, u, right=True).clamp(max=len(counts) - 1)


def draw(
    denoiser: nn.Module,
    model: ModelConfig,
    how: Setting,
    y: Tensor,
    seed: int = 0,
    batch_size: int = 250,
    chunks: Chunks = iter,
) -> Tensor:
    """Return images 0 to N - 1 of a seed, (N, C, H, W) uint8, as a server would draw and round them.

    Args:
        denoiser: on the device that does the work, in the precision it is to be done in.
        y: (N,) their classes, n_classes for "no class".
        chunks: shows progress over the batches.
    """
    device = next(denoiser.parameters()).device
    sigmas = how.sigmas
    parts = []
    for start in chunks(range(0, len(y), batch_size)):
        y_part = y[start : start + batch_size].to(device)
        noise = Streams(seed, range(start, start + len(y_part)))
        x_t = sigmas[0].item() * noise(torch.empty(len(y_part), *model.shape, device=device))
        sampler = sampler_named(how.sampler, x_t, sigmas, y_part, eta=how.eta, noise=noise)
        if how.guidance != 1:
            sampler = guided(sampler, how.guidance, len(model.classes))
        parts.append(torch.from_numpy(images.to_pixels(run(sampler, denoiser))).permute(0, 3, 1, 2))
    return torch.cat(parts)
