"""Random numbers, learning rate, averaged weights and precision of a step of training."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn

from genserve.precision import precision_for


def generator(seed: int, step: int, device: torch.device) -> torch.Generator:
    """Return the random numbers of one step: a resumed run draws what an unbroken one would have drawn."""
    mixed = int(np.random.SeedSequence([seed, step]).generate_state(1)[0])
    return torch.Generator(device).manual_seed(mixed)


def seed_dropout(seed: int, step: int, rank: int) -> None:
    """Seed what dropout draws from, torch's own generator: as `generator`, and each rank its own masks."""
    # rank + 1, because SeedSequence cannot tell a last 0 from nothing
    torch.manual_seed(int(np.random.SeedSequence([seed, step, rank + 1]).generate_state(1)[0]))


def learning_rate(step: int, total: int, warmup: int, peak: float) -> float:
    """Return the rate at a step: a linear rise over `warmup` steps, then half a cosine to 0 at `total`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))


@torch.no_grad()
def update_ema(ema: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move the EMA toward the model. The decay warms up, so that the random start is soon forgotten."""
    decay = min(decay, 1 - 1 / (1 + 0.1 * (step + 1)))
    torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - decay)


def precision_of(name: str, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """Return the autocast context for auto, bf16 or fp32. Auto is bf16 where the hardware multiplies it."""
    if name == "bf16" or (name == "auto" and precision_for(device) == "bf16"):
        return lambda: torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext
