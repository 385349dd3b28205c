"""What a client may ask of an energy. docs/api.md is made from this and pictures.py."""

from dataclasses import replace
from typing import Any

import torch

from genserve.runs.contract import Spec
from genserve.sampling.defaults import Defaults
from genserve.sampling.settings import Setting
from genserve.sampling.solvers import SAMPLERS, TAKE_ETA, WALKS
from genserve.serving.fields import BadRequest, field
from genserve.serving.limits import SAMPLES_MAX
from genserve.serving.orders import Order
from genserve.serving.requests.base import fitting
from genserve.serving.requests.energy_tasks import TASKS, Task, answering, walk_of
from genserve.serving.requests.pictures import PictureRequest
from genserve.serving.requests.sent import kept, picture, pictures_field
from genserve.serving.values import Picture, Pictures, Real


class EnergyRequest(PictureRequest):
    """One answer of an energy: pictures it draws, or what it makes of pictures that are sent along."""

    task: str | None = field(
        None,
        "; ".join(f"`{name}`: {task.summary}" for name, task in TASKS.items())
        + ", also at `POST /explanations/...`; `describe`: what the model is and what its defaults are",
        one_of=(*TASKS, "describe"),
    )
    images: Pictures = pictures_field()
    mask: Picture | None = field(
        None,
        "of `restore`: what is white stays, what is black is filled",
        "a picture of the model's size",
        file=True,
        repr=False,
    )
    sampler: str | None = field(
        None,
        "the model's best if not given; `mala` walks at one noise level, the diffusion samplers take a model "
        "that knows several",
        one_of=(*WALKS, *SAMPLERS),
    )
    sigma: Real | None = field(
        None,
        "noise level at which pictures are looked at (`score`, `refine`, `explain`), or how noisy they are "
        "(`restore` without a mask: standard deviation, pixels being -1 to 1)",
        "the model's sigma_min to sigma_max",
        gt=0,
    )
    step_size: Real | None = field(
        None,
        "of `langevin` and `mala`: what the gradient is multiplied by, in units of sigma**2",
        "0 to 1000, above 0",
        gt=0,
        le=1000,
    )
    noise: Real | None = field(
        None,
        "of `langevin`: standard deviation of the fresh noise of a step, in units of sigma; if not given, "
        "the model's, or as much as the next noise level wants, or at one level sqrt(2 step_size), which "
        "draws from exp(-E); 0 for `refine`",
        ge=0,
        le=10,
    )

    def resolved(self, spec: Spec) -> tuple[Order, Setting | None]:
        name = self.task or ("sample" if self.images is None else "score")
        if name == "describe":
            self._only_task(name)
            return Order(task=name), None
        task, files = TASKS[name], self._files(name)
        n, seed = self._count(len(files) if task.pictures else None), self._seed()
        self._check_format()
        if task.pictures:
            self._check_formats(task, name)
        label = self._labels(spec.classes, seed, n, draw=name == "sample")
        sigma = self._sigma(spec, name)
        setting = self._setting_of(spec, name, sigma) if task.draws else None
        if setting is None:
            self._refuse(f"{name} takes no step", "steps", "sampler", "step_size", "noise", "eta", "schedule")
            self._refuse(f"{name} draws nothing and knows no class", "seed", "label")
        pictures = [picture("images", data, spec.shape, k) for k, data in enumerate(files)]
        order = self._order(
            spec,
            task=name,
            n=n,
            seed=seed if task.draws else None,
            label=label,
            setting=setting,
            nfe=task.readings + (0 if setting is None else setting.nfe),
            facts=_facts(name, setting, sigma),
            format="json" if name == "score" else self.format,
            pictures=torch.stack(pictures) if pictures else None,
            keep=kept(self.mask, spec.shape),
            pictured=name != "score",
            sigma=sigma,
        )
        return order, setting

    begin = staticmethod(answering)

    def _files(self, task: str) -> list[bytes]:
        """Return the pictures that were sent, for a task that wants some."""
        if self.mask is not None and task != "restore":
            raise BadRequest("mask", f"means nothing to the task {task}", "only with task restore")
        if not TASKS[task].pictures:
            if self.images is not None:
                raise BadRequest("images", f"{task} starts from noise", "score, refine, restore or explain")
            return []
        if self.images is None:
            raise BadRequest("images", f"{task} wants pictures", f"1 to {SAMPLES_MAX} pictures")
        files = [self.images] if isinstance(self.images, bytes) else self.images
        if not files:
            raise BadRequest("images", "an empty list", f"1 to {SAMPLES_MAX} pictures")
        return files

    def _check_formats(self, task: Task, name: str) -> None:
        """Refuse a format that a task does not have."""
        if not task.draws and self.stream:
            raise BadRequest("stream", f"{name} looks only once", "false")
        if task.formats and "format" in self.model_fields_set and self.format not in task.formats:
            *first, last = task.formats
            raise BadRequest("format", task.why, f"{', '.join(first)} or {last}" if first else last)

    def _setting_of(self, spec: Spec, task: str, sigma: float | None) -> Setting:
        """Return how a task's images are drawn: by the model's defaults, except for what the task changes."""
        walk = walk_of(spec)
        names = ("sampler", "steps", "schedule", "eta", "step_size", "noise")
        given = {name: getattr(self, name) for name in names}
        defaults = spec.defaults
        if task == "sample":
            return fitting(defaults, **given)
        if task == "refine":  # at one level, downhill unless the model knows only that
            noise = walk.noise_std if walk.plain else 0.0
            refining = _drawn_by(defaults, "langevin", walk.refine_steps)
            at = walk.read_sigma if sigma is None else sigma
            refining = replace(refining, samplers=tuple(WALKS), sigma_min=at, sigma_max=at)
            return fitting(replace(refining, step_size=walk.refine_step_size, noise=noise), **given)
        if walk.plain:
            if self.sampler not in (None, "langevin"):
                raise BadRequest("sampler", f"{self.sampler} cannot keep what the mask keeps", "langevin")
            return fitting(defaults, **given)
        if self.sampler in WALKS:
            raise BadRequest("sampler", "restore takes other samplers", ", ".join(SAMPLERS))
        usual = spec.sampler if spec.sampler in SAMPLERS else "ddim"
        restoring = _drawn_by(defaults, usual, walk.restore_steps)
        if self.mask is None:
            if self.schedule == "tuned":
                raise BadRequest("schedule", "tuned levels begin at pure noise", "another one, or a mask")
            try:
                return fitting(replace(restoring, tuned=()), **given, sigma_max=sigma)
            except BadRequest as error:  # so little noise that the usual steps find no room
                named = "sigma" if error.field == "steps" and self.steps is None else error.field
                raise BadRequest(named, error.message, error.allowed) from None
        return fitting(restoring if self.schedule == "tuned" else replace(restoring, tuned=()), **given)

    def _sigma(self, spec: Spec, task: str) -> float | None:
        """Return the noise level of the task; None if it is drawn from the model's sigma_max."""
        walk = walk_of(spec)
        if walk.plain and task == "restore" and self.mask is None:
            why = "this model knows one noise level, and so no noise to take away"
            raise BadRequest("mask", why, "a mask")
        from_noise = task == "sample" or (task == "restore" and self.mask is not None)
        if self.sigma is None:
            if from_noise and not walk.plain:
                return None
            return walk.restore_sigma if task == "restore" else walk.read_sigma
        if from_noise:
            raise BadRequest("sigma", "drawing starts at the model's own sigma_max", "with pictures, no mask")
        if not spec.sigma_min <= self.sigma <= spec.sigma_max or (
            task == "restore" and self.sigma == spec.sigma_min
        ):
            allowed = f"{spec.sigma_min:g} to {spec.sigma_max:g}"
            raise BadRequest("sigma", f"this model does not know the noise level {self.sigma:g}", allowed)
        return self.sigma


def _facts(task: str, setting: Setting | None, sigma: float | None) -> dict[str, Any]:
    """Return what the answer depends on, by name."""
    names = ("sampler", "steps", "schedule", "eta", "sigma", "step_size", "noise")
    facts: dict[str, Any] = {"task": task} | dict.fromkeys(names) | {"steps": 1, "sigma": sigma}
    if setting is not None:
        facts |= {"sampler": setting.sampler, "steps": setting.steps}
        facts["schedule"] = None if setting.one_level else setting.schedule
        facts["eta"] = setting.eta if setting.sampler in TAKE_ETA else None
        if setting.sampler in WALKS:
            facts |= {"step_size": setting.step_size, "noise": setting.noise}
    return facts


def _drawn_by(defaults: Defaults, sampler: str, steps: int) -> Defaults:
    """Return the defaults with another sampler and number of steps."""
    eta = defaults.eta if sampler in TAKE_ETA else 0.0
    return replace(defaults, sampler=sampler, steps=steps, eta=eta)
