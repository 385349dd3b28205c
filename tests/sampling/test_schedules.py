"""Each schedule against its paper's formula, written here once more and differently."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genserve.sampling.schedules import (
    SCHEDULES,
    Tuned,
    alpha_bar_of,
    cosine,
    karras,
    levels,
    linear,
    offset_cosine,
    sigma_of,
    trailing,
)


@given(st.floats(1e-6, 1))
def test_signal_and_noise_share_one_clock(alpha_bar: float) -> None:
    sigma = sigma_of(torch.tensor(alpha_bar, dtype=torch.float64))
    # x_0 + sigma eps with squared weights scaled to 1: sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps
    assert 1 / math.hypot(1, sigma) == pytest.approx(math.sqrt(alpha_bar), rel=1e-9)
    assert sigma / math.hypot(1, sigma) == pytest.approx(math.sqrt(1 - alpha_bar), rel=1e-6, abs=1e-7)
    assert alpha_bar_of(sigma).item() == pytest.approx(alpha_bar, rel=1e-12)


NAMED = [name for name in SCHEDULES if name != "tuned"]  # the same for every model


@given(schedule=st.sampled_from(NAMED), n=st.integers(1, 300), sigma_max=st.floats(1, 100))
def test_every_schedule_falls_from_the_models_range_to_zero(schedule: str, n: int, sigma_max: float) -> None:
    sigmas = levels(schedule, n, 0.002, sigma_max)
    assert len(sigmas) == n + 1
    assert sigmas.dtype == torch.float64
    assert (sigmas.diff() < 0).all()
    assert sigmas[-1] == 0
    assert sigmas[0] <= sigma_max * (1 + 1e-6)


def test_karras_is_equation_5() -> None:
    n, low, high, rho = 18, 0.002, 80.0, 7
    by_hand = [
        (high ** (1 / rho) + i / (n - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho for i in range(n)
    ]
    assert karras(n).tolist() == pytest.approx([*by_hand, 0], rel=1e-12)


def test_karras_with_rho_1_is_evenly_spaced() -> None:
    assert karras(5, 1.0, 9.0, rho=1).tolist() == pytest.approx([9, 7, 5, 3, 1, 0])


def test_one_karras_step_starts_at_the_top() -> None:
    assert karras(1, 0.1, 3.0).tolist() == pytest.approx([3, 0])


def test_linear_is_the_schedule_of_ddpm() -> None:
    alpha_bar = np.cumprod([1 - (1e-4 + t * (0.02 - 1e-4) / 999) for t in range(1000)])
    vp = alpha_bar_of(linear(1000)[:-1]).flip(0)
    np.testing.assert_allclose(vp, alpha_bar, rtol=1e-12)


def test_cosine_is_equation_17_until_beta_is_clipped() -> None:
    def f(t: float) -> float:
        return math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    vp = alpha_bar_of(cosine(1000)[:-1]).flip(0)
    by_hand = np.array([f(t) / f(0) for t in range(1, 1001)])
    np.testing.assert_allclose(vp[:-1], by_hand[:-1], rtol=1e-9)
    # f(1000) is 0, so the last beta would be 1 and the last sigma infinite
    assert vp[-1].item() == pytest.approx(by_hand[-2] * (1 - 0.999), rel=1e-9)


def test_offset_cosine_divides_the_angle_evenly() -> None:
    n, high, low = 40, 0.95, 0.02
    angles = torch.atan(offset_cosine(n, high, low))
    steps = angles.diff()[:-1]
    np.testing.assert_allclose(steps, -(math.acos(low) - math.acos(high)) / n, rtol=1e-9)
    assert math.cos(angles[0]) == pytest.approx(low)
    # one step further than the last level would be max_signal; the sampler goes to 0 instead
    assert math.cos(angles[-2] + steps[-1]) == pytest.approx(high)


def test_trailing_picks_the_timesteps_of_lin_et_al() -> None:
    every = torch.arange(1, 1001, dtype=torch.float64)  # level t is t
    assert trailing(every, 10).tolist() == [1000, 900, 800, 700, 600, 500, 400, 300, 200, 100, 0]
    assert trailing(every, 1000).tolist() == list(range(1000, -1, -1))
    assert trailing(every, 1).tolist() == [1000, 0]
    assert trailing(every, 7).tolist() == [1000, 857, 714, 571, 429, 286, 143, 0]  # k 1000 / 7, rounded


@given(T=st.integers(1, 200), data=st.data())
def test_trailing_never_repeats_a_level_and_keeps_the_noisiest(T: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, T))
    picked = trailing(torch.arange(1, T + 1, dtype=torch.float64), n)
    assert picked[0] == T
    assert (picked.diff() < 0).all()


def test_linear_and_cosine_keep_their_own_levels_under_sigma_max() -> None:
    for name, full in (("linear", linear(1000)), ("cosine", cosine(1000))):
        cut = levels(name, 300, 0.002, 10.0)
        assert torch.isin(cut, full).all()
        assert cut[0] == full[full <= 10].max()


def test_karras_spans_exactly_the_models_range() -> None:
    assert torch.equal(levels("karras", 7, 0.01, 40.0), karras(7, 0.01, 40.0))


def test_offset_cosine_starts_at_the_models_noise_if_that_is_less_than_its_own() -> None:
    assert levels("offset_cosine", 5, 0.002, 10.0)[0].item() == pytest.approx(10, rel=1e-5)
    assert levels("offset_cosine", 5, 0.002, 80.0)[0].item() == pytest.approx(math.tan(math.acos(0.02)))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: karras(0),
        lambda: karras(5, sigma_min=0.0),
        lambda: karras(5, sigma_min=3.0, sigma_max=2.0),
        lambda: linear(0),
        lambda: linear(1001),
        lambda: cosine(0),
        lambda: cosine(1001),
        lambda: linear(900, sigma_max=0.5),
        lambda: offset_cosine(0),
        lambda: offset_cosine(5, max_signal=1.0),
        lambda: offset_cosine(5, max_signal=0.3, min_signal=0.4),
        lambda: trailing(torch.ones(3), 4),
    ],
)
def test_impossible_settings_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match="got"):
        wrong()


def test_an_unknown_schedule_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="karras, linear, cosine, offset_cosine, tuned, got 'quadratic'"):
        levels("quadratic", 10, 0.002, 80.0)


def test_tuned_is_what_was_found_for_so_many_steps() -> None:
    tuned = [Tuned(sampler="ddim", sigmas=(40.0, 1.0)), Tuned(sampler="heun", sigmas=(30.0, 2.0, 0.1))]
    assert levels("tuned", 3, 0.002, 40.0, tuned).tolist() == [30.0, 2.0, 0.1, 0.0]
    assert levels("tuned", 2, 0.002, 40.0, tuned).dtype == torch.float64
    with pytest.raises(ValueError, match="tuned knows 2, 3 from pure noise: no 4 steps"):
        levels("tuned", 4, 0.002, 40.0, tuned)
    with pytest.raises(ValueError, match=r"no 2 steps from 0\.5"):  # not where less noise is the start
        levels("tuned", 2, 0.002, 0.5, tuned)
    with pytest.raises(ValueError, match="tuned knows nothing"):
        levels("tuned", 2, 0.002, 40.0)
