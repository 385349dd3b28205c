"""Kneser-Ney against the formulas, written out over a tiny corpus."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor

from genserve.models.ngram import NGramText, counted, discount
from genserve.models.text import TextModel
from genserve.runs.loading import torchscript

V, FIRST = 5, 0
IDS = np.random.default_rng(0).choice(V, 60, p=[0.1, 0.4, 0.3, 0.15, 0.05])  # 4 follows few histories


def by_hand(order: int, counted_up_to: int) -> dict[tuple[int, ...], list[float]]:
    """Return p(. | history) for every history of counted_up_to - 1 tokens, by the module's docstring."""
    text = [FIRST] * (counted_up_to - 1) + IDS.tolist()

    def grams(n: int) -> list[tuple[int, ...]]:
        return [tuple(text[i - n + 1 : i + 1]) for i in range(counted_up_to - 1, len(text))]

    def count(n: int) -> Counter[tuple[int, ...]]:
        return Counter(grams(n)) if n == order else Counter(gram[1:] for gram in set(grams(n + 1)))

    def probability(history: tuple[int, ...], w: int, n: int) -> float:
        if n == 0:
            return 1 / V
        h, c = history[len(history) - n + 1 :], count(n)
        noted = {gram[-1]: k for gram, k in c.items() if gram[:-1] == h}
        shorter = probability(history, w, n - 1)
        if not noted:
            return shorter
        ones, twos = (sum(k == times for k in c.values()) for times in (1, 2))
        d, total = (ones / (ones + 2 * twos) if ones + twos else 0.5), sum(noted.values())
        return max(noted.get(w, 0) - d, 0) / total + d * len(noted) / total * shorter

    histories = itertools.product(range(V), repeat=counted_up_to - 1)
    return {h: [probability(h, w, order) for w in range(V)] for h in histories}


def after(network: NGramText, history: tuple[int, ...], order: int) -> Tensor:
    """Return p(. | history), (V,) float64 of the float32 logits."""
    state, logits = network.start(1, order), torch.zeros(1, V)
    for token in history:
        logits, state = network.step(torch.tensor([token]), state)
    return logits[0].double().exp()


@pytest.mark.parametrize(("order", "most"), [(1, 2), (2, 2), (1, 3), (2, 3), (3, 3), (4, 4)])
def test_every_probability_is_that_of_the_formula(order: int, most: int) -> None:
    network = counted(IDS, V, most, FIRST)
    for history, expected in by_hand(order, most).items():
        np.testing.assert_allclose(after(network, history, order), expected, rtol=1e-6)


def test_the_probabilities_of_every_history_sum_to_1() -> None:
    network = counted(IDS, V, 3, FIRST)
    for history in itertools.product(range(V), repeat=2):
        for order in (1, 2, 3):
            assert after(network, history, order).sum().item() == pytest.approx(1, abs=1e-6)


def test_drawing_and_falling_to_the_shorter_history_is_the_same_distribution() -> None:
    """With probability D N(h) / c(h) the history is shortened, else w is drawn from the discounted counts."""
    text = [FIRST, *IDS.tolist()]
    pairs = Counter(itertools.pairwise(text))
    kinds = Counter(w for _, w in pairs)
    rng, h, n = np.random.default_rng(1), 1, 40_000
    d_2, d_1 = (discount(np.array(list(c.values()))) for c in (pairs, kinds))
    follow = {w: c for (a, w), c in pairs.items() if a == h}

    def draw() -> int:
        if rng.random() >= d_2 * len(follow) / sum(follow.values()):
            weights = np.array([c - d_2 for c in follow.values()])
            return int(rng.choice(list(follow), p=weights / weights.sum()))
        if rng.random() >= d_1 * len(kinds) / sum(kinds.values()):
            weights = np.array([c - d_1 for c in kinds.values()])
            return int(rng.choice(list(kinds), p=weights / weights.sum()))
        return int(rng.integers(V))

    drawn = np.bincount([draw() for _ in range(n)], minlength=V) / n
    np.testing.assert_allclose(after(counted(IDS, V, 2, FIRST), (h,), 2), drawn, atol=4 * 0.5 / n**0.5)


def test_discounts_come_from_the_counts_of_counts() -> None:
    assert discount(np.array([1, 1, 1, 2, 5])) == 3 / 5
    assert discount(np.array([3, 4])) == 0.5
    assert discount(np.array([2, 2])) == 0
    assert discount(np.array([1])) == 1


def test_rows_of_several_orders_have_the_bits_that_they_have_alone() -> None:
    network = counted(IDS, V, 3, FIRST)
    orders = [1, 2, 3, 2, 3]
    state = torch.cat([network.start(1, order) for order in orders])
    for token in torch.from_numpy(IDS[:20].reshape(4, 5).copy()):
        together = network.step(token, state)
        for k in range(5):
            alone = network.step(token[k : k + 1], state[k : k + 1])
            assert alone.logits[0].equal(together.logits[k])
            assert alone.state[0].equal(together.state[k])
        state = together.state


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_stretch_is_its_steps(order: int) -> None:
    network = counted(IDS, V, 3, FIRST)
    tokens = torch.from_numpy(IDS[:24].reshape(2, 12).copy())
    answer = network.score(tokens, network.start(2, order))
    state, log_p = network.start(2, order), []
    for now, following in itertools.pairwise(tokens.unbind(1)):
        logits, state = network.step(now, state)
        log_p.append(logits.gather(1, following[:, None]))
    torch.testing.assert_close(answer.log_p, torch.cat(log_p, 1), rtol=1e-6, atol=1e-7)
    assert answer.state.equal(state)
    assert math.exp(-answer.log_p.mean()) < V


def test_a_network_is_built_again_from_its_sizes_and_exported_with_its_methods() -> None:
    network = counted(IDS, V, 3, FIRST)
    model = TextModel(family="text", network="ngram", n_tokens=V, net=network.sizes())
    again = model.build()
    again.load_state_dict(network.state_dict())
    with torchscript():
        frozen = torch.jit.freeze(torch.jit.script(again.eval()), preserved_attrs=["step", "score"])
    token, state = torch.tensor([1, 2]), network.start(2)
    assert frozen.step(token, state).logits.equal(network.step(token, state).logits)
    tokens = torch.tensor([[1, 2, 1, 4]])
    assert frozen.score(tokens, network.start(1)).log_p.equal(network.score(tokens, network.start(1)).log_p)


def test_what_cannot_be_counted_is_named() -> None:
    with pytest.raises(ValueError, match="without tokens"):
        counted(np.array([], np.int64), V, 2, FIRST)
    with pytest.raises(ValueError, match=r"n_tokens \*\* order below 2 \*\* 63, got 5, 0 and 100000"):
        counted(IDS, 100_000, 5, FIRST)
    with pytest.raises(ValueError, match="order 2 needs 2 numbers of histories, got 1"):
        NGramText(V, order=2, first=0, histories=[1], entries=5)
    with pytest.raises(ValueError, match="order must be 1 to 3, got 4"):
        counted(IDS, V, 3, FIRST).start(1, 4)
