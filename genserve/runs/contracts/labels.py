"""model.json of a classifier."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from genserve.runs.contract import Contract, Device
from genserve.sampling.labelling import TTA, Chosen, Pictures


@dataclass(frozen=True, kw_only=True)
class LabelsContract(Contract):
    """The contract of a classifier that says what a picture shows."""

    shape: tuple[int, int, int]  # (C, H, W)
    classes: tuple[str, ...]
    n_features: int
    mirror: bool  # a mirrored picture shows the same
    temperatures: tuple[float, ...] = (1.0,) * len(TTA)  # of the probabilities, by level of augmentation

    def __post_init__(self) -> None:
        super().__post_init__()
        positive = [isinstance(t, int | float) and 0 < t < math.inf for t in self.temperatures]
        if len(positive) != len(TTA) or not all(positive):
            raise ValueError(f"temperatures must be {len(TTA)} numbers above 0, got {self.temperatures}")

    def examples(self, n: int, device: Device) -> list[Any]:
        x = torch.zeros(n, *self.shape, device=device)
        return [Pictures(x), Chosen(x, torch.zeros(n, dtype=torch.long, device=device))]
