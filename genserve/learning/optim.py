"""Help a step of descent: random numbers, learning rate, averaged weights, precision, and how it fails."""

import copy
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from genserve.learning.config import GeneratorConfig
from genserve.precision import precision_for

Module = TypeVar("Module", bound=nn.Module)


def generator(seed: int, step: int, device: torch.device) -> torch.Generator:
    """Return the random numbers of one step: a resumed run draws what an unbroken one would have drawn."""
    mixed = int(np.random.SeedSequence([seed, step]).generate_state(1)[0])
    return torch.Generator(device).manual_seed(mixed)


def seed_dropout(seed: int, step: int, rank: int) -> None:
    """Seed torch's own generator, from which dropout draws: as `generator`, and each rank its own masks."""
    # rank + 1, because SeedSequence cannot tell a last 0 from nothing
    torch.manual_seed(int(np.random.SeedSequence([seed, step, rank + 1]).generate_state(1)[0]))


def placed(network: Module, device: torch.device) -> Module:
    """Return the network on its device, its convolutions' weights in the memory order that is fastest."""
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def averaged(network: Module) -> Module:
    """Return a copy for `update_ema`: in evaluation mode, and without gradients."""
    return copy.deepcopy(network).eval().requires_grad_(False)


def learning_rate(step: int, total: int, warmup: int, peak: float) -> float:
    """Return the rate at a step: a linear rise over `warmup` steps, then half a cosine to 0 at `total`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the rate of all parameters; a group's own `faster`, if it has one, multiplies it."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("faster", 1.0)


@torch.no_grad()
def update_ema(ema: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Move the average toward the network, by 1 - decay of the distance.

    The decay warms up as (step + 1) / (step + 11), so that the random start is soon forgotten.
    """
    decay = min(decay, 1 - 1 / (1 + 0.1 * (step + 1)))
    torch._foreach_lerp_(list(ema.parameters()), list(network.parameters()), 1 - decay)


def precision_of(name: str, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """Return the autocast context for auto, bf16 or fp32. Auto is bf16 where the hardware multiplies it."""
    if name == "bf16" or (name == "auto" and precision_for(device) == "bf16"):
        return lambda: torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext


def diverged(config: GeneratorConfig, step: int, total: int, reason: str) -> FloatingPointError:
    """Return the error that ends a run of `total` steps in which nothing more is learnt."""
    lr = learning_rate(step, total, config.warmup, config.lr)
    return FloatingPointError(
        f"{reason} at step {step}, lr {lr:.2g}; a checkpoint in {Path(config.output) / config.name} is from "
        f"before. Try a lower --lr or --precision fp32. {config}"
    )
