"""What vectors of words answer: the meaning of a sentence, analogies, nearest words, the odd one out.

Pure functions of vectors with length 1; scores are cosines.
"""

from collections.abc import Callable

import torch
from torch import Tensor

SMOOTHING = 1e-3  # of `frequency_weights`
FEWEST_LETTERS, SHARE = 3, 0.6  # that two forms of one word have in common at their beginning


def unit(v: Tensor) -> Tensor:
    """Return vectors (..., D) at length 1; a vector of zeros stays one."""
    length: Tensor = v.norm(dim=-1, keepdim=True)
    return v / length.clamp_min(torch.finfo(v.dtype).tiny)


def frequency_weights(places: Tensor, n_words: int) -> Tensor:
    """Return the weights a / (a + p) of words in a sentence, (N,): near 0 for "the", near 1 for rare words.

    The frequency p of a word is estimated by Zipf's law from its place among n_words, 1 / (rank H).

    Args:
        places: (N,) int64, from 0, the most frequent word first.

    Source: Arora, Liang & Ma 2017, "A simple but tough-to-beat baseline for sentence embeddings", eq. (3).
    """
    harmonic = (1 / torch.arange(1, n_words + 1, dtype=torch.float64)).sum()
    p = 1 / ((places + 1) * harmonic)
    return (SMOOTHING / (SMOOTHING + p)).float()


def sentence(rows: Tensor, weights: Tensor) -> Tensor:
    """Return the vector of a sentence, (D,): the mean of its words' vectors (N, D) by weights (N,), at length
    1.

    A sentence of one word has the vector of that word.
    """
    return unit(weights @ rows)


def analogy(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Return the vector that is to c as b is to a, b - a + c at length 1; all are (..., D) of length 1.

    Source: Mikolov, Yih & Zweig 2013, "Linguistic regularities in continuous space word representations",
    section 4; named 3CosAdd by Levy & Goldberg 2014.
    """
    return unit(b - a + c)


def nearest(
    scores: Tensor, n: int, *, dropped: Callable[[int], bool] = lambda place: False
) -> list[tuple[int, float]]:
    """Return place and score of the n best words, the best first; of equal scores the more frequent word.

    Args:
        scores: (V,), of one query with all words.
        n: at least 1; fewer are returned if fewer are left.
        dropped: whether a word is left out; called once for each candidate, the best first, so it may keep
            count of what was taken before.
    """
    size, total = min(2 * n + 16, len(scores)), len(scores)
    best: list[tuple[int, float]] = []
    tried = 0  # candidates, which begin the longer list of the next round, too
    while True:
        lowest = torch.topk(scores, size).values[-1]
        candidates = (scores >= lowest).nonzero().squeeze(1)  # in the order of places, all ties among them
        order = torch.sort(scores[candidates], descending=True, stable=True).indices
        for place in candidates[order].tolist()[tried:]:
            if len(best) < n and not dropped(place):
                best.append((place, scores[place].item()))
        tried = len(candidates)
        if len(best) == n or size == total:
            return best
        size = min(4 * size, total)


def same_word(a: str, b: str) -> bool:
    """Return whether two words look like forms of one: they begin alike for three letters and 60 % of the
    longer.

    "doctor" and "doctors" do, "king" and "kingdom" do not.
    """
    common = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        common += 1
    return common >= FEWEST_LETTERS and common >= SHARE * max(len(a), len(b))


def odd_one_out(rows: Tensor) -> Tensor:
    """Return the mean cosine of each vector with the others, (N,); the odd one has the lowest.

    Args:
        rows: (N, D), at least 2.

    Raises:
        ValueError: there are fewer.
    """
    if len(rows) < 2:
        raise ValueError(f"need at least 2 vectors to compare, got {len(rows)}")
    together = rows @ rows.sum(0)
    return (together - rows.square().sum(1)) / (len(rows) - 1)
