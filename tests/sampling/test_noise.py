"""The contract of randomness: an image depends on (seed, index) and on nothing else."""

from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest
from torch import Tensor

from genserve.sampling.noise import SEED_MAX, Streams, drawn_classes, uniforms

integers = st.integers(0, SEED_MAX)


def draws(seed: int, indices: list[int], times: int = 2, shape: tuple[int, ...] = (1, 3, 3)) -> Tensor:
    """Return several draws one after another, (B, times, *shape)."""
    noise = Streams(seed, indices)
    return torch.stack([noise(torch.empty(len(indices), *shape)) for _ in range(times)], dim=1)


@given(seed=integers, indices=st.lists(integers, min_size=1, max_size=5))
def test_an_image_alone_draws_what_it_draws_in_a_batch(seed: int, indices: list[int]) -> None:
    together = draws(seed, indices)
    for row, index in zip(together, indices, strict=True):
        assert torch.equal(row, draws(seed, [index])[0])


def test_asking_for_more_images_keeps_the_first_ones() -> None:
    assert torch.equal(draws(5, list(range(8)))[:3], draws(5, list(range(3))))


def test_two_draws_of_one_stream_are_different() -> None:
    first, second = draws(5, [0]).unbind(1)
    assert (first != second).all()


@given(a=st.tuples(integers, integers), b=st.tuples(integers, integers))
def test_distinct_seeds_or_indices_are_distinct_streams(a: tuple[int, int], b: tuple[int, int]) -> None:
    """One pair of 18 float32 normals is equal by chance with probability below 1e-100."""
    assert torch.equal(draws(a[0], [a[1]]), draws(b[0], [b[1]])) == (a == b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((7, 0), (7 + 2**32, 0)),  # what a 32-bit seed would confuse
        ((7, 1), (7, 1 + 2**32)),
        ((3, 5), (5, 3)),
        ((0, 1), (1, 0)),  # what seed + index would confuse
        ((2**62, 0), (2**62 + 1, 0)),  # what a float64 seed would confuse
    ],
)
def test_near_misses_are_distinct_streams(a: tuple[int, int], b: tuple[int, int]) -> None:
    assert (draws(a[0], [a[1]]) != draws(b[0], [b[1]])).all()


def test_streams_are_standard_normal_and_uncorrelated() -> None:
    n = 20_000
    pairs = [(seed, index) for seed in (0, 1, 2**32, 2**32 + 1) for index in (0, 1, 2, 2**32)]
    z = torch.cat([draws(seed, [index], times=1, shape=(n,))[0] for seed, index in pairs]).double()
    assert z.mean(1).abs().max() < 4 / n**0.5  # four standard errors of a mean
    assert (z.var(1) - 1).abs().max() < 4 * (2 / n) ** 0.5  # ... of a variance
    assert ((z**4).mean(1) - 3).abs().max() < 4 * (96 / n) ** 0.5  # Var z^4 = 105 - 9
    off_diagonal = torch.corrcoef(z) - torch.eye(len(pairs))
    assert off_diagonal.abs().max() < 4.5 / n**0.5  # the largest of 120


def test_noise_follows_the_dtype_of_the_image_but_not_its_values() -> None:
    single = Streams(1, [0])(torch.full((1, 2, 2), torch.nan))
    double = Streams(1, [0])(torch.empty(1, 2, 2, dtype=torch.float64))
    assert double.dtype == torch.float64
    assert torch.equal(single.double(), double)


@pytest.mark.parametrize(("seed", "index"), [(-1, 0), (0, -1), (SEED_MAX + 1, 0), (0, SEED_MAX + 1)])
def test_seeds_and_indices_outside_63_bits_are_refused(seed: int, index: int) -> None:
    with pytest.raises(ValueError, match=str(SEED_MAX)):
        Streams(seed, [index])


def test_streams_fill_only_their_own_batch_size() -> None:
    with pytest.raises(ValueError, match="2 streams cannot fill a batch of 3"):
        Streams(0, [0, 1])(torch.empty(3, 4))


def test_a_drawn_class_knows_nothing_of_the_noise() -> None:
    classes = torch.tensor(drawn_classes(5, range(4000), 2)).double()
    means = torch.stack([Streams(5, [k])(torch.empty(1, 1, 8, 8)).mean() for k in range(4000)]).double()
    between = torch.corrcoef(torch.stack([classes, means]))[0, 1].item()
    assert abs(between) < 4 / 4000**0.5  # four standard errors
    assert drawn_classes(5, [7], 2)[0] == classes[7]


def test_a_text_has_numbers_of_its_own_and_keeps_them() -> None:
    """They are uniform in [0, 1); a longer text begins with those of a shorter one."""
    first, again, other, next_seed = (
        list(islice(uniforms(*key), 4000)) for key in ((7, 0), (7, 0), (7, 1), (8, 0))
    )
    assert first == again
    assert not set(first) & set(other)
    assert not set(first) & set(next_seed)
    assert min(first) >= 0
    assert max(first) < 1
    assert kstest(first, "uniform").pvalue > 1e-4
    with pytest.raises(ValueError, match="seed and image indices must be in 0 to"):
        next(uniforms(-1, 0))
