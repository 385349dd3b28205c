"""Noise for models that draw in one evaluation: what makes pictures likelier and less varied."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


def truncated(z: Tensor, limit: float) -> Tensor:
    """Return standard normal numbers moved into [-limit, limit], each to its quantile of that part.

    The result is normal, cut at the limits, and close to z if the limit is far out. Pictures drawn from it
    are nearer to the typical one: better, and less varied.

    Args:
        z: of any shape.
        limit: above 0; infinity changes nothing.

    Source: the truncation trick of Brock et al. 2019 (arXiv:1809.11096), section 3.1, which draws again what
    lies outside; a quantile needs no second draw.
    """
    if math.isinf(limit):
        return z
    tail = torch.special.ndtr(torch.tensor(-limit, dtype=torch.float64, device=z.device))
    lower = torch.special.ndtr(-z.double().abs())  # the half in which double has digits to spare
    magnitude = -torch.special.ndtri(tail + lower * (1 - 2 * tail))
    return torch.copysign(magnitude.clamp(0, limit), z).to(z.dtype)


def tempered(eps: Tensor, temperature: float) -> Tensor:
    """Return standard normal numbers times the temperature, at least 0; 1 changes nothing."""
    return eps * temperature


@dataclass(frozen=True)
class Change:
    """A change of the noise, by one number."""

    apply: Callable[[Tensor, float], Tensor]
    none: float  # the number that changes nothing

    def __call__(self, noise: Tensor, number: float) -> Tensor:
        """Return the noise, changed; same shape."""
        return self.apply(noise, number)


CHANGES = {"truncation": Change(truncated, math.inf), "temperature": Change(tempered, 1.0)}


def change_in(text: str, name: str) -> float:
    """Return the number of a setting in text, `NAME=VALUE`.

    Args:
        name: of the only change that the model takes, one of CHANGES.

    Raises:
        ValueError: the text has another form, or the number is not above 0.
    """
    key, _, value = text.partition("=")
    try:
        number = float(value) if key == name else math.nan
    except ValueError:
        number = math.nan
    if not number > 0:
        raise ValueError(f"a setting of this model is {name}=VALUE with a value above 0; got {text!r}")
    return number
