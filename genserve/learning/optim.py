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


def triangular_rate(step: int, total: int, peak: float) -> float:
    """Return the rate at a step: two straight lines, from a fifth of the peak up to it and down to 7 % of it.

    The peak is at 23 % of all steps.

    Source: Jordan 2024 (arXiv:2404.00498), listing 4.
    """
    return peak * float(np.interp(step / total, [0, 0.23, 1], [0.2, 1, 0.07]))


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


LOOKAHEAD = 5  # steps between two meetings of fast and slow weights


@torch.no_grad()
def look_ahead(slow: nn.Module, fast: nn.Module, step: int, total: int) -> None:
    """Move the slow weights toward the fast ones and set the fast ones back to them, every LOOKAHEAD steps.

    BatchNorm's statistics are averaged like the weights. The slow weights follow at once at the start, and
    hardly at all at the end.

    Source: Zhang et al. 2019 (arXiv:1907.08610), algorithm 1; the decay is that of Jordan 2024, listing 4.

    Args:
        step: counted from 1, after its update.
        total: steps of the whole run.
    """
    if step % LOOKAHEAD:
        return
    decay = 0.95**LOOKAHEAD * (step / total) ** 3
    floats = [k for k, value in slow.state_dict().items() if value.is_floating_point()]
    behind, ahead = slow.state_dict(), fast.state_dict()
    torch._foreach_lerp_([behind[k] for k in floats], [ahead[k] for k in floats], 1 - decay)
    torch._foreach_copy_([ahead[k] for k in floats], [behind[k] for k in floats])


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
