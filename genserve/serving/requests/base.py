"""What every request is: fields, and the job that they become for one model."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from genserve.sampling.defaults import BadSetting, Defaults
from genserve.sampling.settings import Setting
from genserve.serving.fields import BadRequest, Fields
from genserve.serving.jobs.base import Job
from genserve.serving.limits import PIXELS_MAX, WORK_MAX

# outputs in KServe's second protocol that every model can have
ALWAYS = {
    "settings": ("BYTES", "[n]", "JSON: what else the answer depends on"),
    "description": ("BYTES", "[n]", "JSON, of the task `describe`"),
}


class Request(Fields, ABC):
    """What a client may ask of one family."""

    work_max: ClassVar[int] = WORK_MAX  # items x evaluations of one request
    size_max: ClassVar[int] = PIXELS_MAX  # values in one answer

    @abstractmethod
    def job(self, spec: Any, computed: dict[str, str]) -> Job | None:
        """Return what is to be done; None if the model is to be described.

        Args:
            spec: the contract of a model of this family.
            computed: by what its network is evaluated, and in which precision: answers depend on it.

        Raises:
            BadRequest: a field does not fit the model or another field.
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
