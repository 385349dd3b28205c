"""Training runs of the smallest network there is, a line, to test what is kept of a run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genserve.data.pictures import DataConfig, ImageSet
from genserve.learning.checkpoint import Checkpoint

SETS = {"data": ImageSet(torch.zeros(8, 1, 2, 2, dtype=torch.uint8), torch.arange(8) % 2, ("a", "b"))}


@dataclass(frozen=True, kw_only=True)
class Model:
    """A stand-in for what it takes to build a network again."""

    family: str = "line"
    shape: tuple[int, ...] = (2,)
    classes: tuple[str, ...] = ("a", "b")
    net: dict[str, int] = field(default_factory=lambda: {"width": 2})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A stand-in for a program's configuration."""

    name: str = "run"
    output: str = "runs"
    start_from: str | None = None
    data: DataConfig = field(default_factory=DataConfig)
    lr: float = 0.1
    widths: tuple[int, ...] = (1, 2)
    epochs: int = 3
    max_batches_per_epoch: int | None = None
    threads: int = 0
    tensorboard: bool = False


def checkpoint(
    directory: Path,
    *,
    first: bool = True,
    model: Model | None = None,
    inputs: dict[str, str] | None = None,
    **settings: Any,
) -> Checkpoint:
    """Return the checkpoint of a run in this directory."""
    config = Settings(name=directory.name, output=str(directory.parent), **settings)
    return Checkpoint(config, model or Model(), SETS, inputs, first=first)


def trained(value: float = 0.0, width: int = 2) -> tuple[nn.Linear, nn.Linear, torch.optim.AdamW]:
    """Return a network, its EMA and an optimiser that has taken one step."""
    network, ema = nn.Linear(width, 2), nn.Linear(width, 2)
    nn.init.constant_(ema.weight, value)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    network(torch.ones(1, width)).sum().backward()
    optimizer.step()
    return network, ema, optimizer


def begun(directory: Path, value: float = 0.25, step: int = 60, **settings: Any) -> None:
    """Write a run with one checkpoint."""
    first = checkpoint(directory, **settings)
    first.resume(*trained(), total=100)
    first.save(step, *trained(value))
