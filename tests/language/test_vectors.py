"""What vectors of words answer, on vectors whose answers are known by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from genserve.language.vectors import (
    analogy,
    frequency_weights,
    nearest,
    odd_one_out,
    same_word,
    sentence,
    unit,
)

SCORES = st.lists(st.sampled_from([-0.5, 0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=60)


def test_a_sentence_of_one_word_means_that_word() -> None:
    row = unit(torch.randn(1, 8, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(sentence(row, frequency_weights(torch.tensor([7]), 100)), row[0])


def test_a_sentence_is_the_weighted_mean_of_its_words_at_length_1() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    mean = sentence(rows, torch.tensor([3.0, 1.0, 1.0]))
    torch.testing.assert_close(mean, torch.tensor([3.0, 2.0]) / math.sqrt(13))


def test_frequent_words_weigh_little_by_zipf_and_arora() -> None:
    weights = frequency_weights(torch.arange(1000), 1000)
    harmonic = sum(1 / rank for rank in range(1, 1001))
    for place in (0, 9, 999):
        p = 1 / ((place + 1) * harmonic)
        assert weights[place].item() == pytest.approx(1e-3 / (1e-3 + p), rel=1e-6)
    assert (weights[1:] > weights[:-1]).all()


def test_an_analogy_closes_the_parallelogram() -> None:
    man, woman, king = torch.eye(4)[0], torch.eye(4)[1], torch.eye(4)[0] + torch.eye(4)[2]
    queen = analogy(man, woman, king)
    torch.testing.assert_close(queen, (torch.eye(4)[1] + torch.eye(4)[2]) / math.sqrt(2))


def test_analogies_of_many_are_those_of_each() -> None:
    a, b, c = unit(torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0)))
    together = analogy(a, b, c)
    for k in range(5):
        assert together[k].equal(analogy(a[k], b[k], c[k]))


@given(SCORES, st.integers(1, 70), st.sets(st.integers(0, 59)))
def test_the_nearest_are_those_of_a_sort(scores: list[float], n: int, excluded: set[int]) -> None:
    order = sorted(range(len(scores)), key=lambda k: (-scores[k], k))
    expected = [(k, scores[k]) for k in order if k not in excluded][:n]
    assert nearest(torch.tensor(scores), n, dropped=excluded.__contains__) == expected


def test_candidates_are_looked_at_until_there_are_enough() -> None:
    scores = torch.linspace(1, 0, 5000)
    best = nearest(scores, 3, dropped=lambda place: place < 4000)
    assert [place for place, _ in best] == [4000, 4001, 4002]


def test_every_candidate_is_tried_once() -> None:
    """Whoever drops words that are like those before must not drop them for being like themselves."""
    scores, tried = torch.linspace(1, 0, 500).round(decimals=2), []

    def dropped(place: int) -> bool:
        tried.append(place)
        return len(tried) < 300

    assert [place for place, _ in nearest(scores, 2, dropped=dropped)] == [299, 300]
    assert tried == list(range(301))


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("doctor", "doctors", True), ("king", "kings", True), ("run", "runs", True),
        ("quick", "quickly", True), ("king", "kingdom", False), ("king", "queen", False),
        ("man", "many", True), ("do", "dos", False),
        ("same", "same", True), ("", "a", False), ("happy", "unhappy", False),
    ],
)  # fmt: skip
def test_forms_of_a_word_begin_alike(a: str, b: str, same: bool) -> None:
    assert same_word(a, b) == same_word(b, a) == same


def test_the_odd_one_has_the_lowest_mean_cosine_with_the_others() -> None:
    rows = unit(torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    by_hand = [sum(float(rows[i] @ rows[j]) for j in range(6) if j != i) / 5 for i in range(6)]
    torch.testing.assert_close(odd_one_out(rows), torch.tensor(by_hand, dtype=torch.float64))
    fruit: Tensor = torch.tensor([[1.0, 0.1], [1.0, 0.0], [0.0, 1.0], [1.0, -0.1]])
    assert odd_one_out(unit(fruit)).argmin() == 2
    with pytest.raises(ValueError, match="at least 2 vectors"):
        odd_one_out(rows[:1])


def test_a_vector_of_zeros_stays_one() -> None:
    assert unit(torch.zeros(2, 3)).equal(torch.zeros(2, 3))
    assert unit(torch.tensor([3.0, 4.0])).tolist() == pytest.approx([0.6, 0.8])
