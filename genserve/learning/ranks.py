"""What every training program needs around its loop: command line, ranks, learning rate, EMA.

The loop itself stays in training/train_*.py, in plain sight.
"""

import gc
import logging
import math
import os
from argparse import HelpFormatter, RawDescriptionHelpFormatter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from genserve.cli import plain_errors
from genserve.runs.packing import precision_for

log = logging.getLogger(__name__)

Config = TypeVar("Config")


def flags(argv: list[str]) -> list[str]:
    """Return the command line with underscores for the dashes inside flag names: --a-b is --a_b."""
    words = [word.partition("=") if word.startswith("--") else ("", "", word) for word in argv]
    return [name.replace("-", "_").replace("__", "--", 1) + equals + value for name, equals, value in words]


def help_formatter() -> type[HelpFormatter]:
    """Return what shows a program's docstring as it is written, and defaults behind the flags."""
    from jsonargparse import DefaultHelpFormatter

    class Help(DefaultHelpFormatter, RawDescriptionHelpFormatter):
        pass

    return Help


def configure(
    program: Callable[[Config], None], kind: type[Config], description: str, argv: list[str]
) -> None:
    """Read a config from YAML (`--config FILE`) and flags, then run the program with it.

    Every field of the dataclass is a flag, nested ones with a dot, dashes or underscores alike; an unknown
    key is an error. A failure the user can mend ends in one line, not in a traceback.
    """
    from jsonargparse import ArgumentParser

    level = logging.INFO if int(os.environ.get("RANK", "0")) == 0 else logging.ERROR  # the others are quiet
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parser = ArgumentParser(description=description, exit_on_error=True)
    parser.add_argument("--config", action="config", help="YAML file with any of the keys below")
    parser.add_class_arguments(kind, nested_key=None)
    parsed = parser.parse_args(flags(argv))
    parsed.pop("config")
    with plain_errors():
        program(kind(**vars(parser.instantiate(parsed))))


@dataclass(frozen=True)
class Ranks:
    """This process among those that torchrun started; alone without it."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def mine(self, batch: Tensor) -> Tensor:
        """Return this rank's part of a global batch."""
        return batch.chunk(self.size)[self.rank]

    def all(self, part: Tensor) -> Tensor:
        """Return the global batch of which every rank has its part."""
        if self.size == 1:
            return part
        parts = [torch.empty_like(part) for _ in range(self.size)]
        dist.all_gather(parts, part.contiguous())
        return torch.cat(parts)

    def mean(self, value: Tensor) -> float:
        """Return the mean over the ranks."""
        if self.size > 1:
            dist.all_reduce(value)
        return value.item() / self.size

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model with its gradients averaged over the ranks."""
        if self.size == 1:
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids)


def check(config: Any) -> None:
    """Check the settings that every training program has.

    Raises:
        ValueError: one is not what it must be.
    """
    if not config.name.strip():
        raise ValueError("name must not be empty: the run is written to OUTPUT/NAME")
    for name, allowed in (("precision", ("auto", "bf16", "fp32")), ("device", ("auto", "cpu", "cuda"))):
        if getattr(config, name) not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(config, name)!r}")
    for name in ("epochs", "batch_size", "lr", "max_batches_per_epoch"):
        value = getattr(config, name)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} must be above 0, got {value}")
    for name in ("warmup", "threads", "seed"):
        if getattr(config, name) < 0:
            raise ValueError(f"{name} must be at least 0, got {getattr(config, name)}")
    if not 0 <= config.ema_decay < 1:
        raise ValueError(f"ema_decay must be in [0, 1), got {config.ema_decay}")


def check_levels(sigma_min: float, sigma_max: float) -> None:
    """Raise ValueError unless these are the last and the first of several noise levels."""
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(
            f"sigma_min must be above 0 and below sigma_max, got {sigma_min:g} and {sigma_max:g}"
        )


def join_ranks(device: str) -> Ranks:
    """Join the group that torchrun describes, or stand alone. `device` is auto, cpu or cuda.

    Raises:
        ValueError: cuda is asked for and there is no GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device must be auto or cpu where there is no GPU, got 'cuda'")
    size, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    where = torch.device(kind, local) if kind == "cuda" else torch.device(kind)
    if size > 1:
        dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    return Ranks(int(os.environ.get("RANK", "0")), size, where)


def leave_ranks() -> None:
    """Leave the group, where no model or optimiser is alive: gloo's threads abort the process otherwise."""
    if dist.is_initialized():
        gc.collect()
        dist.barrier()
        dist.destroy_process_group()


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
