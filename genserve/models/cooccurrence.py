"""Vectors of words from counts alone: co-occurrence, pointwise mutual information, its best approximation.

    counts     n_ij, how often word j stands near word i
    PPMI       max(0, log(n_ij n / (n_i n_j)) - log(shift)), what j's being there says about i
    vectors    U S**power of the singular value decomposition U S V^T, cut to its first columns

Source: Levy & Goldberg 2014, "Neural word embedding as implicit matrix factorization"; Levy, Goldberg & Dagan
2015, "Improving distributional similarity with lessons learned from word embeddings".
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

NO_WORD = -1  # in place of a word outside the vocabulary, and between paragraphs


def joined(paragraphs: Sequence[Sequence[int]], window: int) -> Tensor:
    """Return the words of paragraphs in one row, (T,) int64, with gaps that no window reaches across."""
    gap = [NO_WORD] * window
    return torch.tensor([word for paragraph in paragraphs for word in (*paragraph, *gap)], dtype=torch.long)


def cooccurrences(words: Tensor, n_words: int, window: int) -> Tensor:
    """Return how often words stand near each other, (V, V) sparse float64, symmetric.

    Two words at distance d count 1 / d, up to the distance `window`.

    Args:
        words: (T,) int64, places in the vocabulary or NO_WORD.

    Source: Pennington, Socher & Manning 2014, "GloVe", section 4.2, for the weight 1 / d.
    """
    total = _counted(words[:0], words[:0], n_words)
    for d in range(1, window + 1):
        a, b = words[:-d], words[d:]
        both = (a >= 0) & (b >= 0)
        total = (total + _counted(a[both], b[both], n_words) / d).coalesce()
    return (total + total.t()).coalesce()


def definitions(pairs: Tensor, n_words: int) -> Tensor:
    """Return how often words define each other, (V, V) sparse float64, symmetric.

    Args:
        pairs: (2, N) int64, a word and a word of its definition.
    """
    total = _counted(pairs[0], pairs[1], n_words)
    return (total + total.t()).coalesce()


def _counted(a: Tensor, b: Tensor, n_words: int) -> Tensor:
    ones = torch.ones(len(a), dtype=torch.float64)
    return _sparse(torch.stack([a, b]), ones, n_words)


def _sparse(indices: Tensor, values: Tensor, n: int) -> Tensor:
    """Return a matrix (n, n) in which values of the same place are added, in their order."""
    with torch.sparse.check_sparse_tensor_invariants():  # said aloud, or torch warns that it does not check
        return torch.sparse_coo_tensor(indices, values, (n, n)).coalesce()


def ppmi(counts: Tensor, shift: float = 1.5, smoothing: float = 0.75) -> Tensor:
    """Return the shifted positive pointwise mutual information of counts, (V, V) sparse float32.

    Args:
        counts: (V, V) sparse, coalesced.
        shift: its logarithm is taken away; the negative samples per word of word2vec.
        smoothing: exponent of the frequencies of contexts, which makes rare ones less surprising.

    Source: Levy, Goldberg & Dagan 2015, eqs. (3) to (5).
    """
    (i, j), n = counts.indices(), counts.values()
    of_words = torch.sparse.sum(counts, 1).to_dense()
    of_contexts = torch.sparse.sum(counts, 0).to_dense() ** smoothing
    information = torch.log(n / of_words[i] * of_contexts.sum() / of_contexts[j] / shift)
    kept = information > 0
    return _sparse(counts.indices()[:, kept], information[kept].float(), len(counts))


class Factors(NamedTuple):
    """The best approximation of a matrix M in a subspace of its columns."""

    left: Tensor  # (V, K), orthonormal columns, the strongest first
    strengths: Tensor  # (K,), singular values, falling
    explained: Tensor  # (), share of M's squares in the first columns that were asked for


class Subspace(nn.Module):
    """Turns columns toward the strongest left singular vectors of a matrix, by subspace iteration.

    Args:
        matrix: M, (V, V) sparse float32.
        columns: K, at most V.
        seed: of the random start.

    Raises:
        ValueError: the matrix has no entries.

    Source: Halko, Martinsson & Tropp 2011 (arXiv:0909.4061), algorithms 4.4 and 5.1.
    """

    basis: Tensor  # (V, K), orthonormal columns

    def __init__(self, matrix: Tensor, columns: int, seed: int) -> None:
        super().__init__()
        self.matrix, self.transposed = matrix, matrix.t().coalesce()
        self.squares = matrix.values().double().square().sum()
        if self.squares == 0:
            raise ValueError("no two words stand together more often than by chance: the text is too short")
        rng = torch.Generator().manual_seed(seed)
        self.register_buffer("basis", orthonormal(torch.randn(len(matrix), columns, generator=rng)))

    def step(self) -> None:
        """Multiply the basis by M M^T and make it orthonormal again."""
        self.basis.copy_(orthonormal(self.matrix @ orthonormal(self.transposed @ self.basis)))

    def factors(self, dim: int) -> Factors:
        """Return the best approximation of M by columns that are combinations of the basis.

        Args:
            dim: the number of columns whose share is `explained`.
        """
        projected = (self.transposed @ self.basis).double()  # M^T Q has the singular values of Q Q^T M
        squares, rotation = torch.linalg.eigh(projected.T @ projected)
        squares, rotation = squares.flip(0).clamp_min(0), rotation.flip(1)
        left = self.basis @ rotation.to(self.basis.dtype)
        return Factors(left, squares.sqrt().to(left.dtype), squares[:dim].sum() / self.squares)


def orthonormal(columns: Tensor) -> Tensor:
    """Return an orthonormal basis of the space of columns (V, K), K at most V."""
    q: Tensor = torch.linalg.qr(columns).Q
    return q


def retrofitted(vectors: Tensor, synonyms: Tensor, own: float, rounds: int = 10) -> Tensor:
    """Return vectors moved toward the mean of their synonyms' vectors, (V, D).

    Args:
        vectors: (V, D).
        synonyms: (2, N) int64, pairs of words, each in both orders and each once.
        own: weight of a word's own vector against the mean of its synonyms.
        rounds: of the iteration, which converges quickly.

    Source: Faruqui et al. 2015, "Retrofitting word vectors to semantic lexicons", eq. (2).
    """
    n_words = len(vectors)
    degree = torch.bincount(synonyms[0], minlength=n_words)
    weights = 1 / degree[synonyms[0]].to(vectors.dtype)
    mean = _sparse(synonyms, weights, n_words)
    has = (degree > 0).unsqueeze(1)
    result = vectors
    for _ in range(rounds):
        result = torch.where(has, (mean @ result + own * vectors) / (1 + own), vectors)
    return result
