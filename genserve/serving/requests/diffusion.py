"""What a client may ask of a diffusion model. docs/api.md is made from this and pictures.py."""

from typing import Literal

import torch

from genserve.runs.contract import Spec
from genserve.sampling.samplers import Sampler, See
from genserve.sampling.settings import Setting
from genserve.sampling.solvers import SAMPLERS, TAKE_ETA
from genserve.serving.fields import BadRequest, Real, field
from genserve.serving.orders import Order
from genserve.serving.requests.base import Notes, fitting
from genserve.serving.requests.pictures import PictureRequest


class DiffusionRequest(PictureRequest):
    """One answer of a diffusion model: pictures, or a description of the model."""

    task: Literal["sample", "describe"] = field(
        "sample", "`describe` answers with what the model is and what its defaults are"
    )
    sampler: str | None = field(
        None,
        "the model's best if not given; `consistency` is for models distilled to few evaluations",
        one_of=SAMPLERS,
    )
    guidance: Real | None = field(
        None,
        "weight of the class: 1 is the model itself, more is more typical",
        ge=0,
        le=20,
    )

    def resolved(self, spec: Spec) -> tuple[Order, Setting | None]:
        if self.task != "sample":
            self._only_task(self.task)
            return Order(task=self.task), None
        n, seed = self._count(), self._seed()
        self._check_format()
        label = self._labels(spec, seed, n, draw=True)
        if label is None and self.guidance not in (None, 1):
            raise BadRequest("guidance", "guidance pulls toward a class, and there is none", "1, or a label")
        guidance = (spec.guidance if label else 1.0) if self.guidance is None else self.guidance
        setting = fitting(
            spec.defaults,
            sampler=self.sampler,
            steps=self.steps,
            schedule=self.schedule,
            eta=self.eta,
            guidance=guidance,
        )
        facts = {
            "sampler": setting.sampler,
            "steps": setting.steps,
            "schedule": setting.schedule,
            "eta": setting.eta if setting.sampler in TAKE_ETA else None,
            "guidance": guidance,
        }
        order = self._order(
            spec, task=self.task, n=n, seed=seed, label=label, setting=setting, nfe=setting.nfe, facts=facts
        )
        return order, setting

    @staticmethod
    def begin(
        order: Order,
        setting: Setting | None,
        spec: Spec,
        device: torch.device,
        see: See | None,
        notes: Notes,
    ) -> Sampler:
        """Return the sampler of an order; every image starts from its own stream of noise."""
        assert setting is not None
        like = torch.empty(order.n, *spec.shape, device=device)
        y = torch.tensor(order.label or [spec.no_class] * order.n, device=device)
        return setting.build(order.noise(), like, y, no_class=spec.no_class, see=see)
