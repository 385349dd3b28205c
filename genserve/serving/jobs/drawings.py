"""The job of drawing pictures, by a denoiser or an energy."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from genserve.images import sides
from genserve.sampling.engine import Finished, Sampler
from genserve.sampling.settings import Setting
from genserve.serving.film import film_for
from genserve.serving.jobs.base import Job
from genserve.serving.limits import FRAMES_MAX, STRIP_MAX
from genserve.serving.orders import Notes, Order
from genserve.serving.picture_replies import answer
from genserve.serving.replies import Reply
from genserve.serving.streams import Stream


class Drawing(Job):
    """Pictures that are drawn, or are sent and looked at.

    Args:
        spec: the contract, with the shape of an image.
        begin: returns the sampler of an order, as `PictureRequest.begin`.
        computed: by what the network is evaluated, and in which precision.
    """

    def __init__(
        self,
        order: Order,
        setting: Setting | None,
        spec: Any,
        begin: Callable[..., Sampler],
        computed: dict[str, str],
    ) -> None:
        self.order, self.setting, self._spec, self._begin = order, setting, spec, begin
        self.task, self.n = order.task, order.n
        self._facts, self._notes = order.facts | computed, Notes()
        self._film = film_for(order, setting)
        if order.stream and self._film and setting:
            self.stream = Stream(order, setting.steps_run, self._facts, self._film, self._notes)

    @property
    def work(self) -> int:
        return self.order.work

    @property
    def size(self) -> int:
        return math.prod(size(self.order, self._spec.shape, self.setting))

    def begin(self, device: torch.device) -> Sampler:
        see = self._film.see if self._film else None
        return self._begin(self.order, self.setting, self._spec, device, see, self._notes)

    def answer(self, ended: Finished) -> Reply:
        nfe = ended.evaluated // self.n
        return answer(self.order, self._facts, ended.result, nfe, self._film, self._notes)

    def __str__(self) -> str:
        return f"task={self.task} seed={self.order.seed} settings={self._facts}"


def size(order: Order, shape: Sequence[int], setting: Setting | None) -> tuple[int, int]:
    """Return the pixel values in a frame of the answer, and its frames."""
    c, h, w = shape
    strip, n = order.format == "filmstrip", order.n
    down, across = (n, STRIP_MAX) if strip else sides(n, order.columns)
    most = FRAMES_MAX if order.format == "gif" else (order.frames or 1)
    frames = min(1 if setting is None else setting.steps_run, most - 1) + 1
    return across * down * h * w * order.scale**2 * c, frames
