"""Choose the next token: the distribution that temperature, top_k and top_p leave, and a draw from it.

The rules apply in this order, to one row of logits:

    temperature   p_i is proportional to exp(logits_i / temperature); 0 leaves the most likely token alone
    top_k         the k most likely tokens; 0 leaves all
    top_p         the fewest tokens, the most likely first, that have at least this probability together

and what remains is scaled to the sum 1. Of tokens that are equally likely, the one with the smaller number
counts as the more likely.

Source: Holtzman et al. 2020, "The curious case of neural text degeneration" (arXiv:1904.09751), section 3.1.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Row = NDArray[np.float64]  # (n_tokens,)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How tokens are chosen.

    Args:
        temperature: 0 or more.
        top_k: 0 for all tokens.
        top_p: above 0, at most 1.

    Raises:
        ValueError: one is out of its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be at least 0, got {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be at least 0, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")


def log_probabilities(logits: NDArray[Any]) -> Row:
    """Return the logarithms of the model's own probabilities, before any rule."""
    shifted = logits.astype(np.float64) - np.max(logits)
    result: Row = shifted - np.log(np.exp(shifted).sum())
    return result


def probabilities(logits: NDArray[Any], rules: Rules) -> Row:
    """Return the probability of each token to be the next, (n_tokens,) float64 with the sum 1.

    Args:
        logits: (n_tokens,); -inf for a token that must not follow.

    Raises:
        ValueError: a logit is NaN, or none is finite.
    """
    logits = logits.astype(np.float64)
    top = np.max(logits)
    if not math.isfinite(top):
        raise ValueError("the logits hold no finite largest one")
    if rules.temperature == 0:
        return _only(np.array([np.argmax(logits)]), np.ones(1), len(logits))
    # far below the smallest temperature that matters, the difference to the largest may overflow: that is 0
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        p: Row = np.exp(np.where(logits == top, 0.0, (logits - top) / rules.temperature))
    if not rules.top_k and rules.top_p == 1:
        return _only(np.arange(len(p)), p, len(p))
    near = _contenders(p, rules)  # sorting them alone takes a fraction of the time
    order = near[np.argsort(-p[near], kind="stable")][: rules.top_k or None]
    ranked = p[order]
    if rules.top_p < 1:
        total = ranked.sum() if rules.top_k else p.sum()
        n = 1 + np.count_nonzero(np.cumsum(ranked) < rules.top_p * total)
        order, ranked = order[:n], ranked[:n]
    return _only(order, ranked, len(p))


def _contenders(p: Row, rules: Rules) -> NDArray[np.int64]:
    """Return tokens, in their order, among which are all that top_k or else top_p can leave.

    Tokens below a share (1 - top_p) / n of the sum have less than 1 - top_p of it together, so without them
    top_p is reached.
    """
    if rules.top_k:
        k = min(rules.top_k, len(p))
        least = np.partition(p, -k)[-k]
    else:
        least = 0.99 * (1 - rules.top_p) * p.sum() / len(p)  # with room for rounding
    return np.flatnonzero(p >= least)


def draw(p: Row, u: float) -> int:
    """Return the token whose piece of [0, 1) holds u, where the pieces are as long as p and in its order.

    Args:
        p: probabilities, with any sum.
        u: in [0, 1).
    """
    ends = np.cumsum(p)
    token = int(np.searchsorted(ends, u * ends[-1], side="right"))
    return token if token < len(p) else int(np.flatnonzero(p)[-1])  # u * sum may round up to the sum


def _only(tokens: NDArray[Any], weights: Row, n: int) -> Row:
    """Return n probabilities that are proportional to the weights of some tokens, 0 for the others."""
    p = np.zeros(n)
    p[tokens] = weights / weights.sum()
    return p
