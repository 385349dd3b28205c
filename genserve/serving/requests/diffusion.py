"""What a client may ask of a diffusion model. docs/api.md is made from this and genserve/api.py."""

from typing import Any, Literal

from typing_extensions import Self

from genserve.runs.contract import Spec
from genserve.sampling.solvers import TAKE_ETA
from genserve.serving.fields import BadRequest, Real, field
from genserve.serving.requests.pictures import PictureRequest, fitting


class DiffusionRequest(PictureRequest):
    """One answer of a diffusion model: pictures, or a description of the model."""

    task: Literal["sample", "describe"] = field(
        "sample", "`describe` answers with what the model is and what its defaults are"
    )
    sampler: Literal["ddim", "ddpm", "heun", "dpmpp_2m", "consistency"] | None = field(
        None,
        "the model's best where not given; `consistency` is for models distilled to few evaluations",
    )
    guidance: Real | None = field(
        None,
        "weight of the class: 1 is the model itself, more is more typical",
        ge=0,
        le=20,
    )

    def resolved(self, spec: Spec) -> Self:
        if self.task != "sample":
            self._only_task(self.task)
        filled = self._common(spec)
        n = filled.get("num_samples", self.num_samples)
        filled["label"] = label = self._labels(spec, filled["seed"], n, draw=True)
        if label is None and self.guidance not in (None, 1):
            raise BadRequest("guidance", "guidance pulls toward a class, and there is none", "1, or a label")
        usual = spec.guidance if label else 1.0
        filled["guidance"] = usual if self.guidance is None else self.guidance
        given = {name: getattr(self, name) for name in ("sampler", "steps", "schedule", "eta")}
        setting = fitting(spec.defaults, **given, guidance=filled["guidance"])
        filled |= {name: getattr(setting, name) for name in ("sampler", "steps", "schedule")}
        filled["eta"] = setting.eta if setting.sampler in TAKE_ETA else None
        request = self._with(filled, setting)
        request._check_work(request.evaluations)
        request._check_size(spec)
        return request

    @property
    def cost(self) -> int:
        return 2 if self.guidance != 1 else 1

    @property
    def evaluations(self) -> int:
        return self.setting.nfe

    def settings(self, spec: Spec) -> dict[str, Any]:
        return {
            "model": spec.name,
            "weights": spec.weights,
            "sampler": self.sampler,
            "steps": self.steps,
            "schedule": self.schedule,
            "eta": self.eta,
            "guidance": self.guidance,
        }
