"""What every request is: fields, and the order and setting that they become for one model."""

from abc import ABC, abstractmethod
from typing import Any

import torch

from genserve.runs.contract import Spec
from genserve.sampling.defaults import BadSetting, Defaults
from genserve.sampling.samplers import Sampler, See
from genserve.sampling.settings import Setting
from genserve.serving.fields import BadRequest, Fields
from genserve.serving.orders import Order

# What an answer says of each image beside its pixels, by name: numbers, rounded.
Notes = dict[str, list[Any]]


class Request(Fields, ABC):
    """What a client may ask of one family."""

    @abstractmethod
    def resolved(self, spec: Spec) -> tuple[Order, Setting | None]:
        """Return what the answer is to be, and how its images are drawn, if any are drawn.

        Raises:
            BadRequest: a field does not fit the model or another field.
        """

    @staticmethod
    @abstractmethod
    def begin(
        order: Order,
        setting: Setting | None,
        spec: Spec,
        device: torch.device,
        see: See | None,
        notes: Notes,
    ) -> Sampler:
        """Return the sampler whose result is the answer.

        Args:
            order, setting: what `resolved` has returned.
            see: is shown every query and the guess of x_0.
            notes: is filled with what the answer says of each image beside its pixels.
        """

    def _only_task(self, task: str) -> None:
        """Refuse every field beside a task that has no use for any."""
        if beside := sorted(self.model_fields_set - {"task"}):
            raise BadRequest(beside[0], f"means nothing to the task {task}", "no other field")

    def _refuse(self, why: str, *names: str) -> None:
        """Refuse the first of these fields that was sent."""
        if beside := [name for name in names if name in self.model_fields_set]:
            raise BadRequest(beside[0], why, "leave it out")


def fitting(defaults: Defaults, **fields: Any) -> Setting:
    """Return the setting of these fields; what is None comes from the defaults.

    Raises:
        BadRequest: a field does not fit the model or another field.
    """
    try:
        return Setting.of(defaults, **fields)
    except BadSetting as error:
        raise BadRequest(error.field, error.message, error.allowed) from error
