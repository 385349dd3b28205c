"""What a client may ask of an energy. docs/api.md is made from this and genserve/api.py."""

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor
from typing_extensions import Self

from genserve.runs.contract import Spec, Walk
from genserve.sampling.defaults import Defaults
from genserve.sampling.settings import Setting
from genserve.sampling.solvers import SAMPLERS, TAKE_ETA, WALKS
from genserve.serving.fields import SAMPLES_MAX, BadRequest, Picture, Pictures, Real, field
from genserve.serving.requests.pictures import PictureRequest, fitting
from genserve.serving.uploads import FORMATS, decoded


class EnergyRequest(PictureRequest):
    """One answer of an energy: pictures it draws, or what it makes of pictures that are sent along."""

    task: Literal["sample", "score", "refine", "restore", "explain", "describe"] | None = field(
        None,
        "`sample` draws, and is usual; with pictures sent along, `score` is: their energies and ranks; "
        "`refine` walks downhill from them; `restore` fills what a mask leaves out, or takes noise away; "
        "`explain`, also at `POST /explanations/...`, shows the gradient of the energy at every pixel; "
        "`describe` answers with what the model is and what its defaults are",
    )
    images: Pictures = field(
        None,
        "base64 in JSON, one or a list; a file in multipart; or the whole body one picture file",
        f"1 to {SAMPLES_MAX} pictures of the model's size",
        repr=False,  # a client's pictures belong in no log
    )
    mask: Picture | None = field(
        None,
        "of `restore`: what is white stays, what is black is filled",
        "a picture of the model's size",
        repr=False,
    )
    sampler: Literal["langevin", "mala", "ddim", "ddpm", "heun", "dpmpp_2m", "consistency"] | None = field(
        None,
        "the model's best where not given; `mala` walks at one noise level, the diffusion samplers want a "
        "model that knows several",
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
        "of `langevin`: standard deviation of the fresh noise of a step, in units of sigma; where not given, "
        "the model's, or as much as the next noise level wants, or at one level sqrt(2 step_size), which "
        "draws from exp(-E); 0 for `refine`",
        ge=0,
        le=10,
    )

    def resolved(self, spec: Spec) -> Self:
        task = self.task or ("sample" if self.images is None else "score")
        if task == "describe":
            self._only_task(task)
        filled: dict[str, Any] = {"task": task} | self._common(spec) | self._uploaded(spec, task)
        n = filled.get("num_samples", self.num_samples)
        filled["label"] = self._labels(spec, filled["seed"], n, draw=task == "sample")
        sigma = self._sigma(spec, task)
        setting = None
        if task in ("score", "explain", "describe"):
            self._refuse(f"{task} takes no step", "steps", "sampler", "step_size", "noise", "eta", "schedule")
            self._refuse(f"{task} draws nothing and knows no class", "seed", "label")
            filled |= {"sigma": sigma, "steps": 1, "seed": None}
        else:
            setting = self._setting_of(spec, task, sigma)
            names = ("sampler", "steps", *(("step_size", "noise") if setting.sampler in WALKS else ()))
            filled |= {"sigma": sigma} | {name: getattr(setting, name) for name in names}
            filled["schedule"] = None if setting.one_level else setting.schedule
            filled["eta"] = setting.eta if setting.sampler in TAKE_ETA else None
        request = self._with(filled, setting)
        request._check_work(request.evaluations)
        request._check_size(spec)
        return request

    def _uploaded(self, spec: Spec, task: str) -> dict[str, Any]:
        """Return images as a list, and what follows from how many there are."""
        wanted = task in ("score", "refine", "restore", "explain")
        if wanted and self.images is None:
            raise BadRequest("images", f"{task} wants pictures", f"1 to {SAMPLES_MAX} pictures")
        if self.mask is not None and task != "restore":
            raise BadRequest("mask", f"means nothing to the task {task}", "only with task restore")
        if not wanted:
            if self.images is not None:
                raise BadRequest("images", f"{task} starts from noise", "score, refine, restore or explain")
            return {}
        images = [self.images] if isinstance(self.images, str) else self.images or []
        if not images:
            raise BadRequest("images", "an empty list", f"1 to {SAMPLES_MAX} pictures")
        if isinstance(self.label, list) and len(self.label) != len(images):
            said = f"{len(self.label)} labels for {len(images)} images"
            raise BadRequest("label", said, "one, or one for each image")
        if "num_samples" in self.model_fields_set and self.num_samples != len(images):
            said = f"{self.num_samples} images asked for and {len(images)} sent"
            raise BadRequest("num_samples", said, "as many as pictures")
        if task in ("score", "explain") and self.stream:
            raise BadRequest("stream", f"{task} looks only once", "false")
        if task == "score" and "format" in self.model_fields_set and self.format != "json":
            raise BadRequest("format", "a score is numbers", "json")
        if task == "explain" and self.format in ("filmstrip", "gif"):
            raise BadRequest("format", "a heat map stands still", "png, json, npy or zip")
        return {
            "images": images,
            "num_samples": len(images),
            "format": "json" if task == "score" else self.format,
        }

    def _setting_of(self, spec: Spec, task: str, sigma: float | None) -> Setting:
        """Return how a task's images are drawn: as the model's own are, but for what the task is about."""
        walk = _walk(spec)
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
        """Return the noise level of the task; none where it is drawn from the model's sigma_max."""
        walk = _walk(spec)
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

    def _refuse(self, why: str, *names: str) -> None:
        if beside := [name for name in names if name in self.model_fields_set]:
            raise BadRequest(beside[0], why, "leave it out")

    def pictures(self, spec: Spec) -> Tensor:
        """Return the images of a resolved request, (N, C, H, W) in [-1, 1].

        Raises:
            BadRequest: one of them is no picture of the model's size.
        """
        assert isinstance(self.images, list)
        return torch.stack([self._picture("images", k, text, spec) for k, text in enumerate(self.images)])

    def kept(self, spec: Spec) -> Tensor | None:
        """Return which pixels the mask keeps, (1, H, W) bool; none without one; raises as `pictures`."""
        if self.mask is None:
            return None
        return self._picture("mask", 0, self.mask, spec).mean(0, keepdim=True) > 0

    def _picture(self, name: str, k: int, text: str, spec: Spec) -> Tensor:
        try:
            return decoded(text, spec.shape)
        except ValueError as error:
            c, h, w = spec.shape
            allowed = f"{w} x {h} pixels, {'gray' if c == 1 else 'colour'}, {', '.join(FORMATS)}"
            raise BadRequest(name, f"{name} {k}: {error}", allowed) from None

    @property
    def pictured(self) -> bool:
        return self.task != "score"

    @property
    def evaluations(self) -> int:
        readings = 2 if self.task == "refine" else 1
        return readings if self._setting is None else self.setting.nfe + readings

    def settings(self, spec: Spec) -> dict[str, Any]:
        names = ("task", "sampler", "steps", "schedule", "eta", "sigma", "step_size", "noise")
        return {"model": spec.name, "weights": spec.weights} | {name: getattr(self, name) for name in names}


def _walk(spec: Spec) -> Walk:
    assert spec.walk is not None  # of an energy
    return spec.walk


def _drawn_by(defaults: Defaults, sampler: str, steps: int) -> Defaults:
    """Return the defaults with another sampler and number of steps."""
    eta = defaults.eta if sampler in TAKE_ETA else 0.0
    return replace(defaults, sampler=sampler, steps=steps, eta=eta)
