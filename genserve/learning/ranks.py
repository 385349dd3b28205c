"""What every training program needs around its loop: command line, ranks, learning rate, EMA.

The loop itself stays in training/train_*.py, in plain sight.
"""

import gc
import logging
import os
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

log = logging.getLogger(__name__)

Config = TypeVar("Config")


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
