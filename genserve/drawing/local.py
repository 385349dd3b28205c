"""Many images of one model: a setting in words, classes in fair shares, batch by batch."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from genserve import images
from genserve.data.pictures import Chunks
from genserve.runs.directory import ModelConfig
from genserve.runs.export import Spec, tuned_in
from genserve.sampling.engine import Evaluate
from genserve.sampling.langevin import slope
from genserve.sampling.noise import Streams
from genserve.sampling.samplers import run
from genserve.sampling.settings import BadSetting, Setting, filled

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


def setting(text: str, spec: Spec) -> Setting:
    """Return what SAMPLER:STEPS[:KEY=VALUE]... names, like dpmpp_2m:12 or ddim:50:schedule=cosine:eta=1.

    What it leaves open is what the model is served with, as in a request.

    Raises:
        ValueError: it names nothing that this model can do.
    """
    try:
        return filled(spec, **fields_of(text, KEYS[spec.family]))
    except BadSetting as error:
        raise ValueError(f"setting {text!r}: {error}") from error


def fields_of(text: str, keys: Mapping[str, type]) -> dict[str, Any]:
    """Return the fields that SAMPLER:STEPS[:KEY=VALUE]... names, of those with these keys.

    Raises:
        ValueError: it is no such text.
    """
    sampler, _, rest = text.partition(":")
    steps, *pairs = rest.split(":")
    words = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    known = len(words) == len(pairs) and words.keys() <= keys.keys()
    if not sampler or not steps.isdecimal() or not known:
        raise ValueError(
            f"a setting is SAMPLER:STEPS[:KEY=VALUE]..., KEY one of {', '.join(keys)}; got {text!r}"
        )
    try:
        values = {key: keys[key](value) for key, value in words.items()}
    except ValueError as error:
        raise ValueError(f"a setting's values are numbers; got {text!r}") from error
    return {"sampler": sampler, "steps": int(steps)} | values


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
    config: ModelConfig | Spec,
    how: Setting,
    y: Tensor,
    seed: int = 0,
    batch_size: int = 250,
    chunks: Chunks = iter,
) -> Tensor:
    """Return images 0 to N - 1 of a seed, (N, C, H, W) uint8, as a server would draw and round them.

    Args:
        model: a denoiser or an energy, on the device and in the precision that do the work; or what
            `loading.served_model` returns, on the device of y.
        config: the model's family, shape and classes.
        y: (N,) their classes, n_classes for "no class".
        chunks: shows progress over the batches.
    """
    device, evaluate, energy = y.device, model, config.family == "energy"
    if isinstance(model, nn.Module) and not isinstance(model, torch.jit.ScriptModule):
        device = next(model.parameters()).device
        evaluate = partial(slope, model) if energy else model
    parts = []
    for start in chunks(range(0, len(y), batch_size)):
        y_part = y[start : start + batch_size].to(device)
        noise = Streams(seed, range(start, start + len(y_part)))
        like = torch.empty(len(y_part), *config.shape, device=device)
        sampler = how.build(noise, like, y_part, energy=energy, no_class=len(config.classes))
        x_0 = run(sampler, evaluate)
        parts.append(torch.from_numpy(images.to_pixels(x_0)).permute(0, 3, 1, 2))
    return torch.cat(parts)
