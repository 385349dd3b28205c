"""One program on several processes: their group, and what each has of a batch."""

import gc
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from genserve.learning.checkpoint import held

Config = TypeVar("Config", bound=Any)  # with `name`, `output`, `device` and `threads`


@dataclass(frozen=True)
class Ranks:
    """This process among those that torchrun started; alone without it."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes files and shows progress."""
        return self.rank == 0

    def mine(self, batch: Tensor) -> Tensor:
        """Return this rank's part of a global batch: (B, ...) -> (B / size, ...)."""
        return batch.chunk(self.size)[self.rank]

    def gather(self, part: Tensor) -> Tensor:
        """Return the global batch of which every rank has its part: (B / size, ...) -> (B, ...)."""
        if self.size == 1:
            return part
        parts = [torch.empty_like(part) for _ in range(self.size)]
        dist.all_gather(parts, part.contiguous())
        return torch.cat(parts)

    def mean(self, value: Tensor) -> float:
        """Return the mean over the ranks of a tensor with one value."""
        if self.size > 1:
            dist.all_reduce(value)
        return value.item() / self.size

    def wrap(self, model: nn.Module, compiled: bool = False) -> nn.Module:
        """Return the model with its gradients averaged over the ranks, and compiled by torch if asked."""
        mode = None
        if self.size > 1:
            ids = [self.device.index] if self.device.type == "cuda" else None
            model = nn.parallel.DistributedDataParallel(model, device_ids=ids)
        elif self.device.type == "cuda":
            mode = "reduce-overhead"  # CUDA graphs: small networks wait for the launches of their kernels
        return cast(nn.Module, torch.compile(model, dynamic=False, mode=mode)) if compiled else model


def join_ranks(device: str) -> Ranks:
    """Join the group that torchrun describes, or stand alone. `device` is auto, cpu or cuda.

    Raises:
        ValueError: device is cuda on a machine without a GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device must be auto or cpu where there is no GPU, got 'cuda'")
    size, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    own = torch.device(kind, local) if kind == "cuda" else torch.device(kind)
    if size > 1:
        dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    return Ranks(int(os.environ.get("RANK", "0")), size, own)


def leave_ranks() -> None:
    """Leave the group, after models and optimisers are gone: gloo's threads abort the process otherwise."""
    if dist.is_initialized():
        gc.collect()
        dist.barrier()
        dist.destroy_process_group()


def launch(fit: Callable[[Config, Ranks], None], config: Config) -> None:
    """Call `fit` on every rank that torchrun started, while the first one holds the run directory.

    A rank that fails ends at once: the others wait for it somewhere else, and torchrun ends them.

    Raises:
        ValueError: device is cuda on a machine without a GPU, or another program trains in the run directory.
        OSError: the run directory cannot be made.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    ranks = join_ranks(config.device)
    with held(Path(config.output) / config.name) if ranks.first else nullcontext():
        fit(config, ranks)
    leave_ranks()
