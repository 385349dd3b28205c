"""Keep a few of the pictures that a sampler passes: for a strip, an animation or a client that watches."""

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from genserve.images import Pixels, to_pixels
from genserve.sampling.samplers import Query
from genserve.sampling.settings import Setting
from genserve.serving.limits import FRAMES_MAX, STRIP_MAX
from genserve.serving.orders import Order


@dataclass(frozen=True)
class Frame:
    """A sampler at one of its noise levels."""

    step: int  # from 1
    nfe: int  # network evaluations of each image until now
    sigma: float
    pixels: Pixels  # (B, H, W, C)


class Film:
    """Remember what a sampler sees at a few of its noise levels, for the end or for a client that watches.

    Heun looks at each level twice, at a trial point and then where it really goes: the last look counts. A
    sampler that walks at one level gets somewhere with every look.

    Args:
        levels: noise levels above 0 that the sampler will visit, or looks of one that walks.
        keep: how many of them to remember; the finished picture comes on top.
        preview: "x_t", in the variance-preserving picture, or "x_0", the current guess.
        cost: network evaluations of each image per look.
        walks: all looks are at one level, and x_t is shown as it is.
    """

    def __init__(
        self, levels: int, keep: int, preview: str = "x_t", cost: int = 1, walks: bool = False
    ) -> None:
        # the guess of the last level is the finished picture
        last = levels - 1 if preview == "x_t" else levels - 2
        self._wanted = set(np.linspace(0, last, min(keep, last + 1)).round().astype(int).tolist())
        self._preview, self._cost, self._walks = preview, cost, walks
        self._level, self._sigma, self._looks = -1, math.inf, 0
        self._kept: dict[int, Frame] = {}

    def see(self, query: Query, x_0: Tensor) -> None:
        """Take in one query and the guess of x_0, as `wrappers.watched` shows them."""
        sigma = query.sigma[0].item()
        self._looks += 1
        if sigma < self._sigma or self._walks:
            self._level, self._sigma = self._level + 1, sigma
        if self._level in self._wanted:
            x_t = query.x if self._walks else query.x / math.sqrt(1 + sigma**2)
            shown = x_t if self._preview == "x_t" else x_0
            pixels = to_pixels(shown)
            self._kept[self._level] = Frame(self._level + 1, self._looks * self._cost, sigma, pixels)

    @property
    def frames(self) -> list[Frame]:
        """All frames, from noise on."""
        return list(self._kept.values())

    @property
    def settled(self) -> list[Frame]:
        """The frames that no later look replaces; safe to ask while another thread runs the sampler."""
        level = self._level
        return [frame for frame in self.frames if frame.step <= level]


def film_for(order: Order, setting: Setting | None) -> Film | None:
    """Return what watches the sampler; None if only finished images are shown."""
    if setting is None:
        return None
    cost, levels, walks = (2 if setting.guidance != 1 else 1), setting.steps_run, setting.one_level
    if order.stream:
        return Film(levels, order.frames - 1, order.preview, cost, walks)
    keep = {"filmstrip": STRIP_MAX - 1, "gif": FRAMES_MAX - 1}.get(order.format)
    return Film(levels, keep, walks=walks) if keep else None
