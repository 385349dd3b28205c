"""Many images of one model: a setting in words, classes in fair shares, batch by batch."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from genserve import images
from genserve.data import Chunks
from genserve.diffusion import SAMPLERS, TAKE_ETA, Sampler, evaluations, guided, run, sampler_named
from genserve.energy import annealed, denoised, langevin, slope
from genserve.engine import Evaluate
from genserve.export import FAMILIES, Walk, tuned_in
from genserve.noise import Noise, Streams, uniform
from genserve.run import ModelConfig
from genserve.schedules import Tuned, levels

KEYS = {
    "diffusion": {"schedule": str, "guidance": float, "eta": float, "sigma_min": float, "sigma_max": float},
    "energy": {
        "schedule": str,
        "eta": float,
        "sigma_min": float,
        "sigma_max": float,
        "step_size": float,
        "noise": float,
    },
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How images are drawn; of `langevin`, step_size in units of sigma**2 and noise in units of sigma."""

    sampler: str
    steps: int
    schedule: str = "karras"
    guidance: float = 1.0
    eta: float = 0.0
    sigma_min: float
    sigma_max: float
    step_size: float = 1.0
    noise: float | None = None
    gradient_max: float | None = None
    tuned: tuple[Tuned, ...] = ()

    @property
    def one_level(self) -> bool:
        """Whether the model knows a single noise level."""
        return self.sigma_min == self.sigma_max

    @property
    def sigmas(self) -> Tensor:
        """The noise levels, (steps + 1,)."""
        return levels(self.schedule, self.steps, self.sigma_min, self.sigma_max, self.tuned)

    @property
    def nfe(self) -> int:
        """Network evaluations an image; of an energy, each with its gradient."""
        if self.sampler in SAMPLERS:
            return evaluations(self.sampler, self.steps) * (2 if self.guidance != 1 else 1)
        return self.steps + (0 if self.one_level else 1)


def setting(
    text: str, model: ModelConfig, walk: Walk | None = None, tuned: tuple[Tuned, ...] = ()
) -> Setting:
    """Return what SAMPLER:STEPS[:KEY=VALUE]... names, like dpmpp_2m:12 or ddim:50:schedule=cosine:eta=1.

    Args:
        walk: of an energy, what is meant where the setting does not say.
        tuned: what the model's schedule `tuned` stands for.

    Raises:
        ValueError: it names nothing that this model can do.
    """
    sampler, _, rest = text.partition(":")
    steps, *pairs = rest.split(":")
    words = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    keys = KEYS[model.family]
    samplers = ("langevin",) if walk and walk.plain else FAMILIES[model.family]
    known = len(words) == len(pairs) and words.keys() <= keys.keys()
    if sampler not in samplers or not steps.isdecimal() or not known:
        raise ValueError(
            f"a setting is SAMPLER:STEPS[:KEY=VALUE]..., SAMPLER one of {', '.join(samplers)}, KEY one of "
            f"{', '.join(keys)}; got {text!r}"
        )
    named: dict[str, Any] = {"sigma_min": model.sigma_min, "sigma_max": model.sigma_max, "tuned": tuned}
    if walk:
        named |= {"step_size": walk.step_size, "noise": walk.noise_std, "gradient_max": walk.gradient_max}
    named |= {key: keys[key](value) for key, value in words.items()}
    found = Setting(sampler=sampler, steps=int(steps), **named)
    if found.eta and sampler not in TAKE_ETA:
        raise ValueError(f"eta is for {' and '.join(TAKE_ETA)} alone, got {text!r}")
    if found.guidance != 1 and not model.classes:
        raise ValueError(f"guidance needs a model with classes, got {text!r}")
    if not found.one_level:
        _ = found.sigmas  # refuses a schedule that does not exist or has fewer levels
    return found


def served(how: Mapping[str, Any]) -> str:
    """Return the setting that a run's serving.json or a server's description means."""
    found = next((found for found in tuned_in(how) if found.steps == how["steps"]), None)
    said = dict(how) | ({"sampler": found.sampler, "eta": found.eta, "schedule": "tuned"} if found else {})
    words = [f"{said['sampler']}:{said['steps']}"]
    if said.get("schedule", "karras") != "karras":
        words.append(f"schedule={said['schedule']}")
    for key, plain in (("eta", 0), ("guidance", 1)):
        if said.get(key, plain) != plain:
            words.append(f"{key}={said[key]:g}")
    return ":".join(words)


def fair_classes(n: int, counts: Tensor) -> Tensor:
    """Return n classes in the proportion of counts, (n_classes,); image k's is the same whatever n is.

    Any stretch of the multiples of the golden ratio, modulo 1, lies evenly (equidistribution, Weyl 1916).
    """
    u = torch.arange(1, n + 1, dtype=torch.float64) * ((5**0.5 - 1) / 2) % 1
    shares = counts.double().cumsum(0) / counts.sum()
    return torch.searchsorted(shares, u, right=True).clamp(max=len(counts) - 1)


def draw(
    model: nn.Module | Evaluate,
    config: ModelConfig,
    how: Setting,
    y: Tensor,
    seed: int = 0,
    batch_size: int = 250,
    chunks: Chunks = iter,
) -> Tensor:
    """Return images 0 to N - 1 of a seed, (N, C, H, W) uint8, as a server would draw and round them.

    Args:
        model: a denoiser or an energy, on the device and in the precision that do the work; or what
            `export.load_model` returns for a CPU, which is faster there.
        y: (N,) their classes, n_classes for "no class".
        chunks: shows progress over the batches.
    """
    device, evaluate = torch.device("cpu"), model
    if isinstance(model, nn.Module):
        device = next(model.parameters()).device
        evaluate = partial(slope, model) if config.family == "energy" else model
    parts = []
    for start in chunks(range(0, len(y), batch_size)):
        y_part = y[start : start + batch_size].to(device)
        noise = Streams(seed, range(start, start + len(y_part)))
        shape = torch.empty(len(y_part), *config.shape, device=device)
        x_0 = run(_sampler(config, how, shape, y_part, noise), evaluate)
        parts.append(torch.from_numpy(images.to_pixels(x_0)).permute(0, 3, 1, 2))
    return torch.cat(parts)


def _sampler(config: ModelConfig, how: Setting, shape: Tensor, y: Tensor, noise: Noise) -> Sampler:
    walk: dict[str, Any] = {"step_size": how.step_size, "noise_std": how.noise, "noise": noise}
    if how.one_level:
        walk |= {"steps": how.steps, "gradient_max": how.gradient_max or torch.inf}
        return langevin(uniform(noise, shape), how.sigma_max, y, inside=_clamped, **walk)
    sigmas = how.sigmas
    x_t = sigmas[0].item() * noise(shape)
    if how.sampler == "langevin":
        return annealed(x_t, sigmas, y, **walk)
    sampler = sampler_named(how.sampler, x_t, sigmas, y, eta=how.eta, noise=noise)
    if config.family == "energy":
        return denoised(sampler)
    return guided(sampler, how.guidance, len(config.classes)) if how.guidance != 1 else sampler


def _clamped(x: Tensor) -> Tensor:
    return x.clamp(-1, 1)
