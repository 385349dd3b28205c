"""Interpolated Kneser-Ney: the next token from counts of up to `order` tokens in a row.

    p_k(w | h) = max(c(hw) - D, 0) / c(h) + D N(h) / c(h) p_{k-1}(w | h'),      p_0 = 1 / n_tokens

h has k - 1 tokens, h' is h without its first one, c(h) the sum of c(hw) over w, N(h) the number of different
w seen after h. Each length has a discount D of its own. At the highest order c counts occurrences; below it,
it counts the different tokens seen before hw. A history that was never seen is shortened.

Sources: Ney et al. 1994, "On structuring probabilistic dependences in stochastic language modelling", for D;
Chen & Goodman 1998, "An empirical study of smoothing techniques for language modeling", section 4.1.6.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from genserve.language.queries import Likelihood, Prediction
from genserve.models.text import TextModel

Ids = NDArray[np.int64]


class NGramText(nn.Module):
    """What the counts of one text predict, for every order up to `order`.

    A state is (B, order) int64: the order asked for, and the order - 1 tokens before the next one. The logits
    are the logarithms of the probabilities.

    Args:
        n_tokens: size of the vocabulary.
        order: most tokens in a row that are counted.
        first: the token that stands before a text.
        histories: how many different histories of 0, 1, ... tokens there are.
        entries: how many different tokens follow them, over all histories.

    Raises:
        ValueError: order or n_tokens below 1, or too large together for 63 bits, or sizes that do not fit.
    """

    histories: Tensor  # (histories,) int64, of each length sorted: the tokens as digits of one number
    ends: Tensor  # (histories,): where the entries of each end; they begin where those before end
    tokens: Tensor  # (entries,)
    counts: Tensor  # (entries,): occurrences
    before: Tensor  # (entries,): different tokens before them
    discounts: Tensor  # (2, order): of counts, and of before

    def __init__(
        self, n_tokens: int, *, order: int, first: int, histories: Sequence[int], entries: int
    ) -> None:
        super().__init__()
        _check(n_tokens, order, first)
        if len(histories) != order:
            raise ValueError(f"order {order} needs {order} numbers of histories, got {len(histories)}")
        self.n_tokens, self.order, self.first = n_tokens, order, first
        self.n_histories, self.n_entries = list(histories), entries
        self.bounds = [sum(histories[:k]) for k in range(order + 1)]  # where the histories of a length begin
        n, small = self.bounds[-1], torch.int16 if n_tokens < 2**15 else torch.int32
        self.register_buffer("histories", torch.zeros(n, dtype=torch.int64))
        self.register_buffer("ends", torch.zeros(n, dtype=torch.int32))
        self.register_buffer("tokens", torch.zeros(entries, dtype=small))
        self.register_buffer("counts", torch.zeros(entries, dtype=torch.int32))
        self.register_buffer(
            "before", torch.zeros(entries, dtype=torch.int32)
        )  # different tokens before them
        self.register_buffer("discounts", torch.zeros(2, order, dtype=torch.float64))

    @torch.jit.unused
    def sizes(self) -> dict[str, Any]:
        """Return the arguments, besides n_tokens, that build a network of this size."""
        return {
            "order": self.order,
            "first": self.first,
            "histories": self.n_histories,
            "entries": self.n_entries,
        }

    def start(self, n: int, order: int = 0) -> Tensor:
        """Return the state before any token, for n texts; order 0 is the highest.

        Raises:
            ValueError: the model has no such order.
        """
        if not 0 <= order <= self.order:
            raise ValueError(f"order must be 1 to {self.order}, got {order}")
        order = order or self.order
        return torch.tensor([[order, *[self.first] * (self.order - 1)]]).expand(n, -1)

    def forward(self, token: Tensor, state: Tensor) -> Prediction:
        return self.step(token, state)

    @torch.jit.export
    def step(self, token: Tensor, state: Tensor) -> Prediction:
        """Return the answer to a Step, each text with the bits that it has alone."""
        state = torch.cat([state, token[:, None]], 1)
        state = torch.cat([state[:, :1], state[:, 2:]], 1)
        rows = [self._probabilities(row).log().float() for row in state.unbind()]
        return Prediction(torch.stack(rows), state)

    @torch.jit.export
    def score(self, tokens: Tensor, state: Tensor) -> Likelihood:
        """Return the answer to a Stretch, each text with the bits that it has alone."""
        length = tokens.shape[1] - 1
        before = torch.cat([state[:, 1:], tokens[:, :-1]], 1)
        past = [before[:, self.order - k : self.order - k + length] for k in range(1, self.order)]
        p = self._found(past, state[:, :1].expand(-1, length), tokens[:, 1:])
        return Likelihood(p.log().float(), torch.cat([state[:, :1], before[:, length:]], 1))

    def _found(self, past: list[Tensor], order: Tensor, token: Tensor) -> Tensor:
        """Return p of tokens by looking up them alone; all tensors are (B, T), past has the nearest first."""
        p = torch.full_like(token, 1, dtype=torch.float64) / self.n_tokens
        lengths = self.ends.diff(prepend=self.ends.new_zeros(1))
        owners = torch.repeat_interleave(torch.arange(len(lengths), device=token.device), lengths)
        keys = owners * self.n_tokens + self.tokens  # rising
        zero = torch.zeros(1, dtype=torch.int64, device=token.device)
        sums = [torch.cat([zero, each.cumsum(0)]) for each in (self.before, self.counts)]
        history, known, unit = torch.zeros_like(token), torch.ones_like(token, dtype=torch.bool), 1
        for k in range(self.order):
            if k:
                history = history + past[k - 1] * unit
                unit *= self.n_tokens
            level = self.histories[self.bounds[k] : self.bounds[k + 1]]
            at = torch.searchsorted(level, history).clamp(max=len(level) - 1)
            known = known & (level[at] == history) & (k < order)
            at = at + self.bounds[k]
            last, first = self.ends[at].long(), (self.ends[at] - lengths[at]).long()
            entry = torch.searchsorted(keys, at * self.n_tokens + token).clamp(max=len(keys) - 1)
            hit, top = keys[entry] == at * self.n_tokens + token, order == k + 1
            count = torch.where(top, self.counts[entry], self.before[entry])
            total = torch.where(top, sums[1][last] - sums[1][first], sums[0][last] - sums[0][first])
            discount = torch.where(top, self.discounts[0, k], self.discounts[1, k])
            mixed = p * (discount * lengths[at] / total) + torch.where(hit, (count - discount) / total, 0.0)
            p = torch.where(known, mixed, p)
        return p

    def _probabilities(self, row: Tensor) -> Tensor:
        """Return p(w | h) for all w, (n_tokens,) float64; row is the state of one text."""
        order = int(row[0].item())
        p = torch.full([self.n_tokens], 1 / self.n_tokens, dtype=torch.float64, device=row.device)
        history = torch.zeros(1, dtype=torch.int64, device=row.device)
        unit = 1
        for k in range(order):  # tokens in the history
            if k:
                history = history + row[-k] * unit
                unit *= self.n_tokens
            begin, end = self.bounds[k], self.bounds[k + 1]
            at = begin + int(torch.searchsorted(self.histories[begin:end], history).item())
            if at == end or int(self.histories[at].item()) != int(history.item()):
                break  # it was never seen, and neither was a longer one
            first = int(self.ends[at - 1].item()) if at else 0
            last = int(self.ends[at].item())
            top = k + 1 == order
            counts = (self.counts if top else self.before)[first:last].double()
            discount = self.discounts[0 if top else 1, k]
            total = counts.sum()
            p = p * (discount * (last - first) / total)
            p.index_add_(0, self.tokens[first:last].long(), (counts - discount) / total)
        return p


def ngram_of(model: TextModel) -> NGramText:
    """Return the network of a configuration, its counts all 0."""
    return NGramText(model.n_tokens, **model.net)


def counted(ids: Ids, n_tokens: int, order: int, first: int) -> NGramText:
    """Return the network with the counts of a text.

    Args:
        ids: (N,), its tokens; before them, `first` counts as seen order - 1 times.

    Raises:
        ValueError: as `NGramText`, or the text is empty.
    """
    _check(n_tokens, order, first)
    if not len(ids):
        raise ValueError("a text without tokens holds nothing to count")
    padded = np.concatenate([np.full(order - 1, first), ids]).astype(np.int64)
    keys = np.zeros(len(ids), np.int64)
    levels: list[tuple[Ids, Ids]] = []  # of each length: the different n-grams as numbers, their occurrences
    for k in range(order):
        keys = keys + padded[order - 1 - k : len(padded) - k] * n_tokens**k
        levels.append(np.unique(keys, return_counts=True))
    histories, ends, before, discounts = [], [], [], np.zeros((2, order))
    for k, (grams, counts) in enumerate(levels):
        unique, starts = np.unique(grams // n_tokens, return_index=True)
        histories.append(unique)
        ends.append(np.append(starts[1:], len(grams)))
        if k + 1 < order:
            before.append(np.unique(levels[k + 1][0] % n_tokens ** (k + 1), return_counts=True)[1])
        else:
            before.append(np.zeros_like(counts))
        discounts[:, k] = discount(counts), discount(before[k])
    offsets = np.cumsum([0, *(len(grams) for grams, _ in levels)])
    network = NGramText(
        n_tokens,
        order=order,
        first=first,
        histories=[len(each) for each in histories],
        entries=int(offsets[-1]),
    )
    contents = {
        "histories": np.concatenate(histories),
        "ends": np.concatenate([each + offset for each, offset in zip(ends, offsets, strict=False)]),
        "tokens": np.concatenate([grams % n_tokens for grams, _ in levels]),
        "counts": np.concatenate([counts for _, counts in levels]),
        "before": np.concatenate(before),
        "discounts": discounts,
    }
    network.load_state_dict({name: torch.from_numpy(value) for name, value in contents.items()})
    return network


def discount(counts: Ids) -> float:
    """Return D = n_1 / (n_1 + 2 n_2), where n_k n-grams have the count k; 1/2 if none has 1 or 2.

    Source: Ney et al. 1994, eq. (19): it nearly maximises the likelihood of each n-gram when it is left out.
    """
    n_1, n_2 = int((counts == 1).sum()), int((counts == 2).sum())
    return n_1 / (n_1 + 2 * n_2) if n_1 + n_2 else 0.5


def _check(n_tokens: int, order: int, first: int) -> None:
    if order < 1 or not 0 <= first < n_tokens or n_tokens**order >= 2**63:
        raise ValueError(
            f"need order of at least 1, first in the vocabulary and n_tokens ** order below 2 ** 63, got "
            f"{order}, {first} and {n_tokens}"
        )
