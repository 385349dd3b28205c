"""Schedules: falling noise levels sigma that end in 0, (n + 1,) float64, in the data's units ([-1, 1]).

The papers name schedules in three clocks. All are one: with alpha_bar the share of signal in the
variance-preserving picture sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps, dividing by sqrt(alpha_bar) gives
x_0 + sigma eps with

    sigma = sqrt(1 / alpha_bar - 1),    alpha_bar = 1 / (1 + sigma**2).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor


def sigma_of(alpha_bar: Tensor) -> Tensor:
    """Return the noise level of a signal share alpha_bar in (0, 1]; same shape."""
    return (1 / alpha_bar - 1).sqrt()


def alpha_bar_of(sigma: Tensor) -> Tensor:
    """Return the signal share in the variance-preserving picture, 1 / (1 + sigma**2); same shape."""
    return 1 / (1 + sigma**2)


def karras(n: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """Return the noise levels of EDM: close together where the image takes shape.

    Args:
        n: number of steps, at least 1.
        sigma_min, sigma_max: last and first level above 0.
        rho: 1 spaces the levels evenly; a larger rho moves them toward sigma_min.

    Raises:
        ValueError: n < 1, or not 0 < sigma_min < sigma_max.

    Source: Karras et al. 2022 (arXiv:2206.00364), eq. (5).
    """
    if n < 1 or not 0 < sigma_min < sigma_max:
        raise ValueError(f"need n >= 1 and 0 < sigma_min < sigma_max, got {n}, {sigma_min}, {sigma_max}")
    ramp = torch.linspace(0, 1, n, dtype=torch.float64)
    levels = (sigma_max ** (1 / rho) * (1 - ramp) + sigma_min ** (1 / rho) * ramp) ** rho
    return torch.cat([levels, levels.new_zeros(1)])


def linear(
    n: int, T: int = 1000, beta_1: float = 1e-4, beta_T: float = 0.02, sigma_max: float = math.inf
) -> Tensor:
    """Return n of the T levels of DDPM, whose beta_t rises linearly from beta_1 to beta_T.

    Args:
        sigma_max: leave out the levels above; those of T = 1000 reach 157.

    Raises:
        ValueError: n is not in 1 to the number of levels.

    Source: Ho et al. 2020 (arXiv:2006.11239), section 4; sub-sequence by `trailing`.
    """
    beta = torch.linspace(beta_1, beta_T, T, dtype=torch.float64)
    levels = sigma_of((1 - beta).cumprod(0))
    return trailing(levels[levels <= sigma_max], n)


def cosine(
    n: int, T: int = 1000, s: float = 0.008, beta_max: float = 0.999, sigma_max: float = math.inf
) -> Tensor:
    """Return n of the T levels of the cosine schedule.

    Args:
        sigma_max: leave out the levels above; those of T = 1000 reach 20,000.

    Raises:
        ValueError: n is not in 1 to the number of levels.

    Source: Nichol & Dhariwal 2021 (arXiv:2102.09672), eq. (17), with its clipped beta; picked by `trailing`.
    """
    t = torch.arange(T + 1, dtype=torch.float64)
    f = torch.cos((t / T + s) / (1 + s) * math.pi / 2) ** 2
    beta = (1 - f[1:] / f[:-1]).clamp(max=beta_max)
    levels = sigma_of((1 - beta).cumprod(0))
    return trailing(levels[levels <= sigma_max], n)


def offset_cosine(n: int, max_signal: float = 0.95, min_signal: float = 0.02) -> Tensor:
    """Return levels at evenly spaced angles: signal = cos(angle), noise = sin(angle), sigma = tan(angle).

    Raises:
        ValueError: n < 1, or not 0 < min_signal < max_signal < 1.

    Source: Foster, Generative Deep Learning, 2nd ed., ch. 8, after the Keras DDIM example (Beres 2022).
    """
    if n < 1 or not 0 < min_signal < max_signal < 1:
        raise ValueError(
            f"need n >= 1 and 0 < min_signal < max_signal < 1, got {n}, {min_signal}, {max_signal}"
        )
    first, last = math.acos(min_signal), math.acos(max_signal)
    levels = torch.tan(first + (last - first) * torch.arange(n, dtype=torch.float64) / n)
    return torch.cat([levels, levels.new_zeros(1)])


def trailing(levels: Tensor, n: int) -> Tensor:
    """Return n of T rising levels, falling, with 0 behind them; the noisiest is always among them.

    Raises:
        ValueError: n is not in 1 to T.

    Source: Lin et al. 2023 (arXiv:2305.08891), table 2, "trailing".
    """
    T = len(levels)
    if not 1 <= n <= T:
        raise ValueError(f"this schedule has {T} levels: steps must be in 1 to {T}, got {n}")
    picked = (T - torch.arange(n, dtype=torch.float64) * T / n).round().long() - 1
    return torch.cat([levels[picked], levels.new_zeros(1)])


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """Holds the noise levels that `genserve tune` has chosen for one model and a number of steps.

    Args:
        sampler, eta: they were chosen with.
        sigmas: falling, all above 0.

    Raises:
        ValueError: sigmas do not fall, or eta is outside 0 to 1.
    """

    sampler: str
    eta: float = 0.0
    sigmas: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.sigmas or any(a <= b for a, b in pairwise((*self.sigmas, 0.0))):
            raise ValueError(f"tuned sigmas must fall and be above 0, got {self.sigmas}")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"tuned eta must be in 0 to 1, got {self.eta}")

    @property
    def steps(self) -> int:
        """The number of levels."""
        return len(self.sigmas)


SCHEDULES = ("karras", "linear", "cosine", "offset_cosine", "tuned")


def levels(schedule: str, n: int, sigma_min: float, sigma_max: float, tuned: Sequence[Tuned] = ()) -> Tensor:
    """Return n levels of a named schedule for a model that knows the noise from sigma_min to sigma_max.

    Karras spans that range. The others have levels of their own, less those above sigma_max.

    Args:
        tuned: this model's levels for the schedule `tuned`.

    Raises:
        ValueError: the name is not in SCHEDULES, or the schedule has no n levels.
    """
    match schedule:
        case "karras":
            return karras(n, sigma_min, sigma_max)
        case "linear":
            return linear(n, sigma_max=sigma_max)
        case "cosine":
            return cosine(n, sigma_max=sigma_max)
        case "offset_cosine":
            signal = 1 / math.hypot(1, sigma_max)  # of the model's noisiest level
            return offset_cosine(n, min_signal=max(0.02, signal))
        case "tuned":
            for one in tuned:
                if one.steps == n and one.sigmas[0] <= sigma_max:
                    return torch.tensor([*one.sigmas, 0.0], dtype=torch.float64)
            known = ", ".join(str(one.steps) for one in tuned) or "nothing"
            raise ValueError(f"tuned knows {known} from pure noise: no {n} steps from {sigma_max:g}")
    raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {schedule!r}")
