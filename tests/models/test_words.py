"""Vectors of words: exact scores, the same bits alone and in any batch, in eager torch and in TorchScript."""

import io

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genserve.models.words import QUERY_STEP, STEP, WordsConfig, WordVectors, fixed


def some(n_words: int = 3000, dim: int = 200) -> WordVectors:
    vectors = WordsConfig(family="words", n_words=n_words, dim=dim).build().eval()
    vectors.vectors.copy_(fixed(torch.randn(n_words, dim, generator=torch.Generator().manual_seed(0))))
    return vectors


def queries(n: int, dim: int = 200) -> Tensor:
    return F.normalize(torch.randn(n, dim, generator=torch.Generator().manual_seed(1)), dim=1)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 17, 32])
def test_a_query_has_the_same_scores_to_the_bit_alone_and_in_a_crowd(size: int) -> None:
    vectors, v = some(), queries(64)
    together = vectors(v)
    assert torch.cat([vectors(part) for part in v.split(size)]).equal(together)
    # fixed point is what makes it so
    plain, parts = F.linear(v, vectors.vectors.float()), v.split(1)
    assert not torch.cat([F.linear(part, vectors.vectors.float()) for part in parts]).equal(plain)


def test_scores_are_exact_in_every_order_of_addition() -> None:
    vectors, v = some(), queries(8)
    grid = (v.double() / QUERY_STEP).round() * QUERY_STEP
    exact = grid @ vectors.vectors.double().T  # float64 has room to spare
    assert vectors(v).double().equal(exact.clamp(-1, 1))
    order = torch.randperm(200, generator=torch.Generator().manual_seed(2))
    shuffled = some()
    shuffled.vectors.copy_(vectors.vectors[:, order])
    assert shuffled(v[:, order]).equal(vectors(v))


@pytest.mark.parametrize("dim", [1, 2, 300])
def test_no_sum_leaves_the_whole_numbers_that_float32_holds(dim: int) -> None:
    """The longest vectors that rounding may leave, each against itself: all terms have one sign."""
    v = F.normalize(torch.rand(50, dim, generator=torch.Generator().manual_seed(0)) + 0.1, dim=1)
    rows = fixed(v).double().norm(dim=1)
    grid = ((v.double() / QUERY_STEP).round() * QUERY_STEP).norm(dim=1)
    assert rows.max() * grid.max() / (STEP * QUERY_STEP) < 2**24


def test_scores_are_cosines_to_three_digits() -> None:
    raw = torch.randn(100, 200, generator=torch.Generator().manual_seed(0))  # of `some`
    vectors = some(100)
    exact = F.normalize(raw.double(), dim=1)
    scores = vectors(vectors.rows(torch.arange(100)))
    assert (scores.double() - exact @ exact.T).abs().max() < 2e-3
    assert scores.abs().max() <= 1
    assert scores.argmax(1).equal(torch.arange(100))


def test_rows_are_the_vectors_of_places_whatever_their_number() -> None:
    vectors = some(50, 4)
    places = torch.tensor([3, 3, 49, 0])
    assert vectors.rows(places).equal(vectors.vectors[places].float())
    assert vectors.rows(places[:0]).shape == (0, 4)
    with pytest.raises(IndexError):
        vectors.rows(torch.tensor([50]))


@pytest.mark.filterwarnings("ignore:.torch.jit.* is deprecated")  # TorchServe's archives carry it
def test_torchscript_answers_as_eager_and_after_a_file() -> None:
    vectors, buffer = some(), io.BytesIO()
    torch.jit.save(torch.jit.script(vectors), buffer)
    buffer.seek(0)
    loaded = torch.jit.freeze(torch.jit.load(buffer).eval(), preserved_attrs=["rows"])
    for _ in range(3):  # it runs the first calls as they are and later ones optimised
        for n in (1, 5):
            assert loaded(queries(n)).equal(vectors(queries(n)))
    assert loaded.rows(torch.tensor([1, 2])).equal(vectors.rows(torch.tensor([1, 2])))


def test_fixed_point_keeps_directions_and_survives_a_file() -> None:
    raw = torch.randn(500, 150, generator=torch.Generator().manual_seed(0))
    kept = fixed(raw)
    assert kept.dtype == torch.float16
    assert (kept.double() / STEP).equal((kept.double() / STEP).round())
    assert kept.double().norm(dim=1).sub(1).abs().max() < 3e-3
    assert F.cosine_similarity(kept.double(), raw.double()).min() > 0.9999
    assert fixed(kept.float() * 7).double().sub(kept.double()).abs().max() <= STEP  # length does not matter


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_a_vector_without_a_direction_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="without a length"):
        fixed(torch.tensor([[1.0, 2.0], [bad, bad]]))


@pytest.mark.parametrize(("n_words", "dim"), [(0, 3), (3, 0)])
def test_there_are_words_and_numbers(n_words: int, dim: int) -> None:
    with pytest.raises(ValueError, match=f"must be above 0, got {n_words} and {dim}"):
        WordVectors(n_words, dim)
