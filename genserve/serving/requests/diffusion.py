"""What a client may ask of a diffusion model. docs/api.md is made from this and pictures.py."""

from typing import Any, Literal

import torch

from genserve.runs.contract import Spec
from genserve.sampling.noise import SEED_MAX
from genserve.sampling.samplers import Sampler, See
from genserve.sampling.settings import Setting
from genserve.sampling.solvers import SAMPLERS, TAKE_ETA
from genserve.serving.fields import BadRequest, field
from genserve.serving.orders import Notes, Order
from genserve.serving.requests.base import fitting
from genserve.serving.requests.pictures import PictureRequest
from genserve.serving.requests.sent import kept, picture
from genserve.serving.values import Count, Picture, Real

STRENGTH = 0.5  # of a start from a picture, if nothing is kept
RESAMPLE = 4  # of kept pixels; docs/quality.md has the figures


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
    init_image: Picture | None = field(
        None,
        "start from this picture: each image is a variation of it, or with a `mask` keeps part of it; a file "
        "in multipart, base64 in JSON, or the whole body one picture file",
        "a picture of the model's size",
        file=True,
        body=True,
        repr=False,  # a client's pictures belong in no log
    )
    strength: Real | None = field(
        None,
        "of `init_image`: the share of the steps that is run. The picture gets as much noise as the first of "
        "them removes: little changes details, 1 leaves nothing of the picture. If not given, "
        f"{STRENGTH}, or 1 with a `mask`",
        "above 0 to 1",
        gt=0,
        le=1,
    )
    mask: Picture | None = field(
        None,
        "of `init_image`: what is white stays, what is black is drawn",
        "a picture of the model's size",
        file=True,
        repr=False,
    )
    resample: Count | None = field(
        None,
        "with a `mask`: how often each step is run, with fresh noise in between, so that what is drawn fits "
        f"what stays; costs as many evaluations; {RESAMPLE} if not given",
        ge=1,
        le=50,
    )
    seed_to: Count | None = field(
        None,
        "the images turn from that of `seed` into that of `seed_to`, both number `first_index`, in "
        "`num_samples` steps, all of one class",
        ge=0,
        le=SEED_MAX,
    )

    def resolved(self, spec: Spec) -> tuple[Order, Setting | None]:
        if self.task != "sample":
            self._only_task(self.task)
            return Order(task=self.task), None
        n, seed = self._count(), self._seed()
        self._check_format()
        self._check_start()
        label = self._labels(spec.classes, seed, n, draw=self.init_image is None)
        if self.seed_to is not None:
            self._check_ends(n)
            label = label and [label[0]] * n
        if label is None and self.guidance not in (None, 1):
            raise BadRequest("guidance", "guidance pulls toward a class, and there is none", "1, or a label")
        setting = self._setting(spec, (spec.guidance if label else 1.0))
        start = None
        if self.init_image is not None:
            start = picture("init_image", self.init_image, spec.shape).expand(n, *spec.shape)
        order = self._order(
            spec,
            task=self.task,
            n=n,
            seed=seed,
            seed_to=self.seed_to,
            label=label,
            setting=setting,
            nfe=setting.nfe,
            facts=self._facts(setting),
            pictures=start,
            keep=kept(self.mask, spec.shape),
        )
        return order, setting

    def _check_start(self) -> None:
        """Refuse fields of a picture or of a mask that was not sent."""
        for name in ("strength", "mask"):
            if getattr(self, name) is not None and self.init_image is None:
                raise BadRequest(name, "there is no picture to start from", "only with init_image")
        if self.resample is not None and self.mask is None:
            raise BadRequest("resample", "there are no pixels to fit to", "only with init_image and mask")

    def _check_ends(self, n: int) -> None:
        """Refuse a way between two seeds that has no two ends, or more than one class."""
        if n < 2:
            raise BadRequest("seed_to", "one image cannot lie between two seeds", "num_samples of 2 or more")
        if isinstance(self.label, list):
            raise BadRequest("label", "all images between two seeds have one class", "one label, no list")

    def _setting(self, spec: Spec, guidance: float) -> Setting:
        """Return how the images are drawn.

        Args:
            guidance: if none was sent.
        """
        usual = None if self.init_image is None else STRENGTH if self.mask is None else 1.0
        resample = RESAMPLE if self.resample is None and self.mask is not None else self.resample
        setting = fitting(
            spec.defaults,
            sampler=self.sampler,
            steps=self.steps,
            schedule=self.schedule,
            eta=self.eta,
            guidance=guidance if self.guidance is None else self.guidance,
            strength=usual if self.strength is None else self.strength,
            resample=resample,
        )
        if setting.steps == 1 and setting.strength not in (None, 1):
            name, allowed = ("strength", "1") if self.strength is not None else ("steps", "2 or more")
            raise BadRequest(name, "a single step starts from noise alone", f"{allowed}, or no init_image")
        return setting

    def _facts(self, setting: Setting) -> dict[str, Any]:
        """Return what the answer depends on, by name."""
        facts: dict[str, Any] = {
            "sampler": setting.sampler,
            "steps": setting.steps,
            "schedule": setting.schedule,
            "eta": setting.eta if setting.sampler in TAKE_ETA else None,
            "guidance": setting.guidance,
        }
        if self.init_image is not None:
            facts["strength"] = setting.strength
        if self.mask is not None:
            facts["resample"] = setting.resample
        if self.seed_to is not None:
            facts["seed_to"] = self.seed_to
        return facts

    @staticmethod
    def begin(
        order: Order,
        setting: Setting | None,
        spec: Spec,
        device: torch.device,
        see: See | None,
        notes: Notes,
    ) -> Sampler:
        """Return the sampler of an order; every image draws from its own stream of noise."""
        assert setting is not None
        like = torch.empty(order.n, *spec.shape, device=device)
        y = torch.tensor(order.label or [spec.no_class] * order.n, device=device)
        start = None if order.pictures is None else order.pictures.to(device)
        keep = None if order.keep is None else order.keep.to(device)
        if order.seed_to is not None:
            notes["t"] = [round(k / (order.n - 1), 4) for k in range(order.n)]
        return setting.build(order.noise(), like, y, no_class=spec.no_class, start=start, keep=keep, see=see)
