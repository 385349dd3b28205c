"""What a client may ask of an energy. docs/api.md is made from this and genserve/api.py."""

from typing import Any, Literal

import torch
from torch import Tensor
from typing_extensions import Self

from genserve.api import PictureRequest
from genserve.diffusion import SAMPLERS, evaluations
from genserve.export import Spec, Walk
from genserve.fields import SAMPLES_MAX, BadRequest, Pictures, field
from genserve.uploads import FORMATS, decoded

WALKS = ("langevin", "mala")  # samplers that take the slope as it is


class EnergyRequest(PictureRequest):
    """One answer of an energy: pictures it draws, or what it makes of pictures that are sent along."""

    task: Literal["sample", "score", "refine", "restore", "explain", "describe"] | None = field(
        None,
        "sample, score, refine, restore, explain, describe",
        "`sample` draws, and is usual; with pictures sent along, `score` is: their energies and ranks; "
        "`refine` walks downhill from them; `restore` fills what a mask leaves out, or takes noise away; "
        "`explain`, also at `POST /explanations/...`, shows the gradient of the energy at every pixel; "
        "`describe` answers with what the model is and what its defaults are",
    )
    images: Pictures = field(
        None,
        f"1 to {SAMPLES_MAX} pictures of the model's size",
        "base64 in JSON, one or a list; a file in multipart; or the whole body one picture file",
    )
    mask: str | None = field(
        None, "a picture of the model's size", "of `restore`: what is white stays, what is black is filled"
    )
    sampler: Literal["langevin", "mala", "ddim", "ddpm", "heun", "dpmpp_2m", "consistency"] | None = field(
        None,
        "langevin, mala, ddim, ddpm, heun, dpmpp_2m, consistency",
        "the model's best where not given; `mala` walks at one noise level, the diffusion samplers want a "
        "model that knows several",
    )
    sigma: float | None = field(
        None,
        "the model's sigma_min to sigma_max",
        "noise level at which pictures are looked at (`score`, `refine`, `explain`), or how noisy they are "
        "(`restore` without a mask: standard deviation, pixels being -1 to 1)",
        gt=0,
    )
    step_size: float | None = field(
        None,
        "0 to 1000, above 0",
        "of `langevin` and `mala`: what the gradient is multiplied by, in units of sigma**2",
        gt=0,
        le=1000,
    )
    noise: float | None = field(
        None,
        "0 to 10",
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
        filled |= self._way(spec, task)
        request = self.model_copy(update=filled)
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

    def _way(self, spec: Spec, task: str) -> dict[str, Any]:
        """Return sampler, steps and noise levels of a task."""
        walk, sigma = _walk(spec), self._sigma(spec, task)
        if task in ("score", "explain"):
            self._refuse(f"{task} takes no step", "steps", "sampler", "step_size", "noise", "eta", "schedule")
            self._refuse(f"{task} draws nothing and knows no class", "seed", "label")
            return {"sigma": sigma, "steps": 1, "seed": None}
        tuned = self._tuned(spec) if task == "sample" else None
        usual: str = (tuned or spec).sampler
        allowed: tuple[str, ...] = ("langevin", *SAMPLERS)
        if task == "refine" or walk.plain:
            usual, allowed = "langevin", WALKS
            if task == "restore":  # mala would move what the mask keeps
                allowed = ("langevin",)
        elif task == "restore":
            usual, allowed = (spec.sampler if spec.sampler in SAMPLERS else "ddim"), SAMPLERS
        sampler = self.sampler or usual
        if sampler not in allowed:
            why = "this model knows one noise level" if walk.plain else f"{task} takes other samplers"
            raise BadRequest("sampler", why, ", ".join(allowed))
        way = {"sampler": sampler, "sigma": sigma}
        if sampler in WALKS:
            return way | self._steps(spec, task, sampler)
        self._refuse(f"{sampler} has none", "step_size", "noise")
        noisy = task == "restore" and self.mask is None
        top = sigma if noisy and sigma else spec.sigma_max
        usual_steps = walk.restore_steps if task == "restore" else spec.steps
        return way | self._levels(spec, sampler, top, usual_steps, tuned)

    def _steps(self, spec: Spec, task: str, sampler: str) -> dict[str, Any]:
        """Return the steps of a walk, at one noise level or from level to level."""
        walk, refining = _walk(spec), task == "refine"
        if sampler == "mala":
            self._refuse("mala's noise follows from its step_size", "noise")
        if task == "restore" and self.mask is None:
            said = "this model knows one noise level, and so no noise to take away"
            raise BadRequest("mask", said, "a mask")
        noise = walk.noise_std if walk.plain or self.step_size is None else None
        if refining and not walk.plain:
            noise = 0.0
        found: dict[str, Any] = {
            "step_size": self.step_size or (walk.refine_step_size if refining else walk.step_size),
            "noise": None if sampler == "mala" else noise if self.noise is None else self.noise,
        }
        if not refining and not walk.plain:
            return found | self._levels(spec, sampler, spec.sigma_max, walk.steps)
        self._refuse(f"{sampler} stays at one noise level", "eta", "schedule")
        return found | {"steps": self.steps or (walk.refine_steps if refining else walk.steps)}

    def _sigma(self, spec: Spec, task: str) -> float | None:
        """Return the noise level of the task; none where it is drawn from the model's sigma_max."""
        walk = _walk(spec)
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
        if self.steps is None:
            raise ValueError("resolve the request first")
        if self.task in ("score", "explain"):
            return 1
        readings = 2 if self.task == "refine" else 1
        if self.sampler in SAMPLERS:
            return evaluations(self.sampler, self.steps) + readings
        extra = 0 if self.sampler == "langevin" and self.schedule is None else 1
        return self.steps + extra + readings

    def settings(self, spec: Spec) -> dict[str, Any]:
        names = ("task", "sampler", "steps", "schedule", "eta", "sigma", "step_size", "noise")
        return {"model": spec.name, "weights": spec.weights} | {name: getattr(self, name) for name in names}


def _walk(spec: Spec) -> Walk:
    assert spec.walk is not None  # of an energy
    return spec.walk
