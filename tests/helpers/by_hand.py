"""Work out a served model's answers without the served code: from the eager network and the formulas.

It uses no sampler, setting, engine or exported model of genserve.
"""

import json
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from real_server import ROOT
from torch import Tensor

from genserve.runs.directory import load_model, model_config
from genserve.sampling.noise import Streams, drawn_classes
from genserve.sampling.schedules import cosine, karras, linear, offset_cosine

N_CLASSES = 10  # of the digits; as a class it means "no class"
READ_SIGMA = 0.5  # level at which the residual energy is read, and of the noise in a picture to restore


class Expected(NamedTuple):
    """The expected answer to one request."""

    x: Tensor  # (N, 1, 28, 28), before it is rounded
    energies: Tensor  # (N,)


class ByHand:
    """A shipped model in float32.

    Args:
        name: of its run directory.
    """

    def __init__(self, name: str) -> None:
        directory = ROOT / "weights" / name
        self.network, self.model = load_model(directory), model_config(directory)
        self.serving = json.loads((directory / "serving.json").read_text())
        self.config = json.loads((directory / "config.json").read_text())
        self.plain = self.model.energy == "plain"
        self.read_sigma = 1.0 if self.plain else READ_SIGMA
        self.no_class = 0 if self.plain else N_CLASSES

    def slope(self, x: Tensor, sigma: float, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the energies (N,) and their gradients (N, 1, 28, 28)."""
        x = x.detach().requires_grad_()
        energy = self.network(x, torch.full((len(x),), sigma), y)
        return energy.detach(), torch.autograd.grad(energy.sum(), x)[0]

    def x_0(self, x: Tensor, sigma: float, y: Tensor, guidance: float = 1.0) -> Tensor:
        """Return E[x_0 | x]: a denoiser's answer, with guidance; of an energy, by Tweedie's formula."""
        if self.model.family == "energy":
            return x - sigma**2 * self.slope(x, sigma, y)[1]
        level = torch.full((len(x),), sigma)
        answer: Tensor = self.network(x, level, y)
        if guidance == 1:
            return answer
        without: Tensor = self.network(x, level, torch.full_like(y, self.no_class))
        return without + guidance * (answer - without)

    def drawn(self, fields: dict[str, Any]) -> Tensor:
        """Return the pictures of a diffusion model for a request, (N, 1, 28, 28), before they are rounded."""
        n = range(fields["num_samples"])
        label = fields.get("label", drawn_classes(fields["seed"], n, N_CLASSES))
        y = torch.tensor(label if isinstance(label, list) else [label] * len(n))
        return self.through_levels(fields, None, y, None, Streams(fields["seed"], n))

    def answer(self, fields: dict[str, Any], x: Tensor | None = None, keep: Tensor | None = None) -> Expected:
        """Return the expected answer to a request.

        Args:
            fields: of the request, without its pictures.
            x: (N, 1, 28, 28), its pictures.
            keep: (1, 28, 28) bool, its mask.
        """
        task = fields.get("task", "sample")
        n = fields["num_samples"] if x is None else len(x)
        nothing = torch.full((n,), self.no_class)
        y = nothing
        if "label" in fields:
            y = torch.full((n,), fields["label"])
        elif task == "sample" and not self.plain:
            y = torch.tensor(drawn_classes(fields["seed"], range(n), N_CLASSES))
        if task != "explain":
            noise = Streams(fields["seed"], range(n))
            if task == "refine" or self.plain:
                x = self.at_one_level(fields, x, y, noise)
            else:
                x = self.through_levels(fields, x, y, keep, noise)
        assert x is not None
        return Expected(x, self.slope(x, self.read_sigma, nothing)[0])

    # ---- at one noise level --------------------------------------------------------------------------------

    def at_one_level(self, fields: dict[str, Any], x: Tensor | None, y: Tensor, noise: Streams) -> Tensor:
        """Return the ends of Langevin or MALA chains, from pictures or from uniform noise."""
        if x is None:
            x = 2 * torch.special.ndtr(noise(torch.empty(len(y), *self.model.shape))) - 1
        usual = {"step_size": 0.1, "noise_std": 0.0, "gradient_max": math.inf}  # downhill
        if self.plain:
            usual = self.config["train"]["langevin"] | self.serving["walk"]
        sigma, size = self.read_sigma, fields.get("step_size", usual["step_size"]) * self.read_sigma**2
        if fields.get("sampler") == "mala":
            return self.mala(x, sigma, y, fields["steps"], size, noise)
        std, limit = fields.get("noise", usual["noise_std"]) * sigma, usual["gradient_max"]
        for _ in range(fields["steps"]):
            x = x - size * self.slope(x, sigma, y)[1].clamp(-limit, limit) + std * noise(x)
            x = x.clamp(-1, 1)
        return x

    def mala(self, x: Tensor, sigma: float, y: Tensor, steps: int, size: float, noise: Streams) -> Tensor:
        """Return ends of chains; a step is taken with min(1, exp(-E') q(x | x') / (exp(-E) q(x' | x)))."""

        def log_q(to: Tensor, start: Tensor, gradient: Tensor) -> Tensor:
            """Return ln of N(to; start - size grad, 2 size) but for its constant, (N,)."""
            return -(to - start + size * gradient).square().flatten(1).sum(1) / (4 * size)

        energy, gradient = self.slope(x, sigma, y)
        for _ in range(steps):
            proposal = x - size * gradient + math.sqrt(2 * size) * noise(x)
            energy_2, gradient_2 = self.slope(proposal, sigma, y)
            ratio = energy - energy_2 + log_q(x, proposal, gradient_2) - log_q(proposal, x, gradient)
            taken = torch.special.ndtr(noise(energy)).log() < ratio
            energy = torch.where(taken, energy_2, energy)
            x, gradient = (
                torch.where(taken.view(-1, 1, 1, 1), new, old)
                for new, old in ((proposal, x), (gradient_2, gradient))
            )
        return x

    # ---- from level to level -------------------------------------------------------------------------------

    def through_levels(
        self, fields: dict[str, Any], x: Tensor | None, y: Tensor, keep: Tensor | None, noise: Streams
    ) -> Tensor:
        """From noise, or from pictures without a mask, down to 0."""
        steps = fields["steps"]
        noisy = x is not None and keep is None
        top = READ_SIGMA if noisy else self.model.sigma_max
        sigmas = self.sigmas(fields.get("schedule", "karras"), steps, top)
        sampler, eta = fields.get("sampler"), fields.get("eta", 0.0)
        tuned = [t for t in self.serving["tuned"] if len(t["sigmas"]) == steps]
        if sampler is None and "schedule" not in fields and x is None and tuned:
            sampler, eta, sigmas = tuned[0]["sampler"], tuned[0]["eta"], [*tuned[0]["sigmas"], 0.0]
        elif sampler is None:
            sampler, eta = self.serving["sampler"], self.serving["eta"]
        if sampler == "ddpm":
            sampler, eta = "ddim", 1.0
        known = torch.empty(len(y), *self.model.shape) if x is None else x
        x = known if noisy else sigmas[0] * noise(known)
        if sampler == "langevin":
            return self.annealed(x, sigmas, y, noise)

        def look(x: Tensor, sigma: float) -> Tensor:
            """Return the guess of x_0, with the pixels that are known in their place."""
            guess = self.x_0(x, sigma, y, fields.get("guidance", 1.0))
            return guess if keep is None else torch.where(keep, known, guess)

        return solved(sampler, x, sigmas, eta, look, noise)

    def sigmas(self, schedule: str, steps: int, top: float) -> list[float]:
        """Return the noise levels of a schedule; those above what the model knows are left out."""
        levels = {
            "karras": lambda: karras(steps, self.model.sigma_min, top),
            "linear": lambda: linear(steps, sigma_max=top),
            "cosine": lambda: cosine(steps, sigma_max=top),
            "offset_cosine": lambda: offset_cosine(steps, min_signal=1 / math.hypot(1, top)),
        }
        return levels[schedule]().tolist()

    def annealed(self, x: Tensor, sigmas: list[float], y: Tensor, noise: Streams) -> Tensor:
        """A Langevin step at each level: it takes half of the noise away, or more if the next level wants it,
        and adds as much as is missing there.
        """
        for sigma, after in pairwise(sigmas):
            end = after / sigma if after else 1.0  # the last level is left by a denoising
            size = min(max(0.5, 1 - end), 1 + end)
            std = math.sqrt(max(0.0, end**2 - (1 - size) ** 2))
            x = x - size * sigma**2 * self.slope(x, sigma, y)[1] + std * sigma * noise(x)
        return x - sigmas[-2] ** 2 * self.slope(x, sigmas[-2], y)[1]


def solved(
    sampler: str,
    x: Tensor,
    sigmas: list[float],
    eta: float,
    look: Callable[[Tensor, float], Tensor],
    noise: Streams,
) -> Tensor:
    """Follow ddim (Song et al. 2021, eq. 12), heun (Karras et al. 2022, algorithm 1) or dpmpp_2m to the end.

    Args:
        look: (x, sigma) -> the guess of x_0.
    """
    before: tuple[Tensor, float] | None = None
    for sigma, after in pairwise(sigmas):
        x_0 = look(x, sigma)
        if sampler == "heun":
            eps = (x - x_0) / sigma
            ahead = x + (after - sigma) * eps
            if after:
                eps = (eps + (ahead - look(ahead, after)) / after) / 2
            x = x + (after - sigma) * eps
            continue
        if sampler == "dpmpp_2m" and after:  # x_0 as it will be in the middle of the step
            h = math.log(sigma / after)
            before, x_0 = (x_0, h), x_0 if before is None else x_0 + h / (2 * before[1]) * (x_0 - before[0])
        fresh = eta * after * math.sqrt(1 - (after / sigma) ** 2)
        x = x_0 + math.sqrt(after**2 - fresh**2) * (x - x_0) / sigma
        if fresh:
            x = x + fresh * noise(x)
    return x
