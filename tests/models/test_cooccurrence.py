"""Counting and factorising, against formulas written out by hand and dense linear algebra."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from genserve.models.cooccurrence import (
    NO_WORD,
    Subspace,
    cooccurrences,
    definitions,
    joined,
    orthonormal,
    ppmi,
    retrofitted,
)


@given(
    st.lists(st.lists(st.integers(-1, 4), max_size=9), min_size=1, max_size=4),
    st.integers(1, 4),
)
def test_counts_are_those_of_a_double_loop(paragraphs: list[list[int]], window: int) -> None:
    expected = torch.zeros(5, 5, dtype=torch.float64)
    for paragraph in paragraphs:
        for i, a in enumerate(paragraph):
            for j, b in enumerate(paragraph):
                if i != j and abs(i - j) <= window and a >= 0 and b >= 0:
                    expected[a, b] += 1 / abs(i - j)
    counts = cooccurrences(joined(paragraphs, window), 5, window).to_dense()
    torch.testing.assert_close(counts, expected, rtol=1e-12, atol=1e-12)


def test_a_word_outside_the_vocabulary_keeps_its_place() -> None:
    counts = cooccurrences(torch.tensor([0, NO_WORD, 1]), 2, window=2).to_dense()
    assert counts.tolist() == [[0, 0.5], [0.5, 0]]


def test_definitions_count_both_ways() -> None:
    counts = definitions(torch.tensor([[0, 0, 2], [1, 1, 0]]), 3).to_dense()
    assert counts.tolist() == [[0, 2, 1], [2, 0, 0], [1, 0, 0]]


def random_counts(n: int = 12) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    half = torch.randint(0, 4, (n, n), generator=rng).double()
    return half + half.T


@pytest.mark.parametrize(("shift", "smoothing"), [(1.0, 1.0), (1.5, 0.75)])
def test_ppmi_is_the_formula(shift: float, smoothing: float) -> None:
    counts = random_counts()
    total = counts.sum().item()
    of_contexts = counts.sum(0) ** smoothing
    expected = torch.zeros_like(counts)
    for i in range(12):
        for j in range(12):
            if counts[i, j] > 0:
                p_ij, p_i = counts[i, j].item() / total, counts[i].sum().item() / total
                p_j = (of_contexts[j] / of_contexts.sum()).item()
                expected[i, j] = max(0.0, math.log(p_ij / (p_i * p_j)) - math.log(shift))
    result = ppmi(counts.to_sparse(), shift, smoothing)
    torch.testing.assert_close(result.to_dense().double(), expected, rtol=1e-6, atol=1e-7)
    assert (result.values() > 0).all()


def test_a_subspace_turns_to_the_strongest_singular_vectors() -> None:
    matrix = ppmi(random_counts(40).to_sparse(), 1.0, 0.75)
    u, s, _ = torch.linalg.svd(matrix.to_dense().double())
    subspace = Subspace(matrix, columns=8, seed=0)
    shares = []
    for _ in range(60):
        subspace.step()
        shares.append(subspace.factors(3).explained.item())
    factors = subspace.factors(3)
    assert all(b >= a - 1e-6 for a, b in pairwise(shares))  # it never turns away
    assert shares[0] < shares[-1]
    assert shares[-1] == pytest.approx((s[:3].square().sum() / s.square().sum()).item(), rel=1e-5)
    torch.testing.assert_close(factors.strengths[:3].double(), s[:3], rtol=1e-4, atol=0)
    overlap = (factors.left[:, :3].double().T @ u[:, :3]).abs()
    torch.testing.assert_close(overlap, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-2)


def test_a_basis_is_orthonormal_and_a_function_of_its_seed() -> None:
    matrix = ppmi(random_counts().to_sparse(), 1.0)
    one, same, other = (Subspace(matrix, 5, seed) for seed in (1, 1, 2))
    assert one.basis.equal(same.basis)
    assert not one.basis.equal(other.basis)
    for _ in range(3):
        one.step()
        torch.testing.assert_close(one.basis.T @ one.basis, torch.eye(5), rtol=0, atol=1e-5)


def test_text_without_any_information_is_refused() -> None:
    even = torch.ones(4, 4, dtype=torch.float64).to_sparse()
    with pytest.raises(ValueError, match="the text is too short"):
        Subspace(ppmi(even, 1.0, 1.0), 2, 0)


def test_retrofitting_ends_where_a_word_is_the_mean_of_itself_and_its_synonyms() -> None:
    vectors = orthonormal(torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    pairs = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])  # 0 - 1 - 2; 3 and 4 have none
    result = retrofitted(vectors, pairs, own=2.0, rounds=200)
    for place, synonyms in ((0, [1]), (1, [0, 2]), (2, [1])):
        expected = (result[synonyms].mean(0) + 2.0 * vectors[place]) / 3.0
        torch.testing.assert_close(result[place], expected)
    assert result[3:].equal(vectors[3:])
