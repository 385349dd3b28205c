"""Vectors of words, and the scores of a query against all of them: one matrix product for all open queries.

Everything is in fixed point, so the product is exact: a score has the same bits alone and in any batch, on
any number of threads and any machine, whatever the order of its additions.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEP = 2.0**-11  # numbers of a vector are multiples of this: float16 holds those up to 1
QUERY_STEP = 2.0**-12  # those of a query are multiples of this


class WordVectors(nn.Module):
    """Vectors of length 1, a row per word, the most frequent word first.

    A score is a sum of multiples of STEP * QUERY_STEP = 2**-23. By Cauchy and Schwarz every part of the sum
    is at most about 1, that is 2**23 such multiples, and float32 holds all whole numbers up to 2**24. So no
    addition is rounded.

    Args:
        n_words: rows.
        dim: length of a row.

    Raises:
        ValueError: one of them is not above 0.
    """

    vectors: Tensor

    def __init__(self, n_words: int, dim: int) -> None:
        super().__init__()
        if n_words < 1 or dim < 1:
            raise ValueError(f"n_words and dim must be above 0, got {n_words} and {dim}")
        self.query_step = QUERY_STEP  # TorchScript knows attributes, and no globals
        self.register_buffer("vectors", torch.zeros(n_words, dim, dtype=torch.float16))

    def forward(self, v: Tensor) -> Tensor:
        """Return the cosines of vectors v (B, D) of length 1 with all words, (B, V) float32 in [-1, 1]."""
        v = torch.round(v.float() / self.query_step) * self.query_step
        return F.linear(v, self.vectors.float()).clamp(-1.0, 1.0)

    @torch.jit.export
    def rows(self, index: Tensor) -> Tensor:
        """Return the vectors of words, (B, D) float32, by their places (B,) int64."""
        return self.vectors[index].float()


def fixed(v: Tensor) -> Tensor:
    """Return vectors (N, D) at length 1 and in fixed point, float16, as `WordVectors` keeps them.

    Raises:
        ValueError: one has no length, or is not finite.
    """
    length = v.double().norm(dim=1, keepdim=True)
    if not bool(((length > 0) & length.isfinite()).all()):
        raise ValueError("a word has a vector without a length: it is 0 or not finite")
    result: Tensor = (v.double() / length / STEP).round() * STEP
    return result.half()


@dataclass(frozen=True, kw_only=True)
class WordsConfig:
    """The configuration of vectors of words; `model` in config.json."""

    family: str  # "words"
    n_words: int
    dim: int

    def build(self) -> WordVectors:
        """Return the vectors, all 0; raises ValueError as `WordVectors`."""
        return WordVectors(self.n_words, self.dim)
