"""model.json of vectors of words."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genserve.language.vocabulary import Vocabulary
from genserve.runs.contract import Contract, Device

SHOWN = 10  # words in a description


class Lookup(NamedTuple):
    """Words by their places in the vocabulary; the answer is their vectors (B, D)."""

    place: Tensor  # (B,) int64


class Comparison(NamedTuple):
    """Vectors to compare with all words; the answer is their cosines (B, V)."""

    v: Tensor  # (B, D), of length 1


@dataclass(frozen=True, kw_only=True)
class WordsSpec(Contract):
    """The contract of vectors of words."""

    n_words: int
    dim: int
    words: tuple[str, ...]  # the most frequent first

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Words and their places."""
        return Vocabulary(self.words)

    def examples(self, n: int, device: Device) -> list[Any]:
        v = torch.zeros(n, self.dim, device=device)
        return [Comparison(v), Lookup(torch.zeros(n, dtype=torch.long, device=device))]

    def described(self) -> dict[str, Any]:
        return super().described() | {"words": self.words[:SHOWN]}
