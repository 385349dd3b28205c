"""A setting: how images are drawn, with nothing left open. Everything that draws uses `Setting.build`.

A request, a setting as text (ddim:50:eta=1) and what a model is served with all become one through
`Setting.of`, so that what is left open means the same everywhere.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from genserve.sampling.defaults import BadSetting, Defaults, fields_of, refuse
from genserve.sampling.langevin import annealed, bounded, langevin, mala
from genserve.sampling.noise import Noise, uniform
from genserve.sampling.samplers import Sampler, See
from genserve.sampling.schedules import Tuned, levels
from genserve.sampling.solvers import SOLVERS, TAKE_ETA, WALKS, Solver, sampler_named
from genserve.sampling.wrappers import denoised, guided, inpainted, resampled, watched, watched_slopes


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Says how images are drawn, with nothing left open.

    Args:
        sampler: one of SOLVERS, or at one noise level of WALKS.
        steps: of the sampler, at least 1.
        schedule: of the noise levels; means nothing at one level.
        guidance: weight of the class.
        eta: fresh noise of the samplers in TAKE_ETA, 0 to 1.
        sigma_min, sigma_max: last and first noise level; equal at one level.
        step_size: of `langevin` and `mala`, in units of sigma**2.
        noise: standard deviation of the fresh noise of a Langevin step, in units of sigma; if not given,
            what `annealed` and `langevin` find consistent.
        gradient_max: every component of the gradient is clamped to this; at one level.
        tuned: what the schedule `tuned` stands for.
        strength: of a start from a clean picture, above 0 to 1: the share of the steps that is run, rounded,
            at least one. Those are the last ones; the picture gets noise of the first level left. At 1 the
            start is noise alone, as without a picture.
        resample: how often each step is run if pixels are kept (`wrappers.resampled`), at least 1.
    """

    sampler: str
    steps: int
    schedule: str = "karras"
    guidance: float = 1.0
    eta: float = 0.0
    sigma_min: float
    sigma_max: float
    step_size: float = 1.0
    noise: float | None = None
    gradient_max: float | None = None
    tuned: tuple[Tuned, ...] = ()
    strength: float | None = None
    resample: int = 1

    def __post_init__(self) -> None:
        for name, good, allowed in (
            ("steps", self.steps >= 1, "at least 1"),
            ("eta", 0 <= self.eta <= 1, "0 to 1"),
            ("guidance", 0 <= self.guidance < math.inf, "0 or more"),
            ("step_size", 0 < self.step_size < math.inf, "above 0"),
            ("noise", self.noise is None or 0 <= self.noise < math.inf, "0 or more"),
            ("sigma_max", 0 < self.sigma_min <= self.sigma_max < math.inf, "sigma_min or more, both above 0"),
            ("strength", self.strength is None or 0 < self.strength <= 1, "above 0 to 1"),
            ("resample", self.resample >= 1, "at least 1"),
        ):
            if not good:
                raise BadSetting(name, f"got {getattr(self, name)}", allowed)

    @classmethod
    def of(
        cls,
        defaults: Defaults,
        *,
        sampler: str | None = None,
        steps: int | None = None,
        schedule: str | None = None,
        eta: float | None = None,
        guidance: float | None = None,
        step_size: float | None = None,
        noise: float | None = None,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        strength: float | None = None,
        resample: int | None = None,
    ) -> "Setting":
        """Return a setting; what is None comes from the defaults.

        If neither sampler, schedule nor eta is given, tuned levels for this number of steps come first. A
        sampler that is named alone draws no fresh noise (eta 0).

        Raises:
            BadSetting: a field does not fit the model or another field.
        """
        is_open = sampler is None and schedule is None and eta is None and not defaults.one_level
        steps = defaults.steps if steps is None else steps
        tuned = defaults.tuned_for(steps) if is_open or schedule == "tuned" else None
        name = defaults.known(sampler or (tuned or defaults).sampler)
        values: dict[str, Any] = {
            "sampler": name,
            "steps": steps,
            "guidance": defaults.weight(guidance),
            "sigma_min": defaults.sigma_min if sigma_min is None else sigma_min,
            "sigma_max": defaults.sigma_max if sigma_max is None else sigma_max,
        }
        values |= defaults.walking(name, step_size, noise)
        if defaults.one_level:
            refuse(f"{name} stays at one noise level", eta=eta, schedule=schedule, strength=strength)
            refuse(f"{name} stays at one noise level", resample=resample)
            return cls(**values)
        if name in WALKS:
            refuse(f"{name} from level to level cannot keep pixels", resample=resample)
        if name in TAKE_ETA:
            usual = (tuned or defaults).eta if sampler is None else 0.0
            values["eta"] = usual if eta is None else eta
        elif eta is not None:
            raise BadSetting("eta", f"{name} takes no eta", f"only with sampler {' or '.join(TAKE_ETA)}")
        values["schedule"] = schedule or ("tuned" if tuned else defaults.schedule)
        values |= {"strength": strength, "resample": 1 if resample is None else resample}
        return cls(**values, tuned=defaults.tuned)._with_falling_levels()

    def _with_falling_levels(self) -> "Setting":
        """Return the setting itself if its schedule has such levels, else raise BadSetting."""
        try:
            sigmas = self._every_level
        except ValueError as error:
            other = f"other steps, or another schedule than {self.schedule}"
            raise BadSetting("steps", str(error), other) from error
        if not bool((sigmas.diff() < 0).all()):
            why = f"{self.steps} levels do not fit between {self.sigma_min:g} and {self.sigma_max:g}"
            raise BadSetting("steps", why, "fewer steps")
        return self

    @classmethod
    def parse(cls, text: str, defaults: Defaults) -> "Setting":
        """Return the setting that a text names, like dpmpp_2m:12 or ddim:50:schedule=cosine:eta=1.

        Raises:
            ValueError: the text is not SAMPLER:STEPS[:KEY=VALUE]..., or names what this model cannot do.
        """
        try:
            return cls.of(defaults, **fields_of(text, defaults.keys))
        except BadSetting as error:
            raise ValueError(f"setting {text!r}: {error}") from error

    def text(self, defaults: Defaults) -> str:
        """Return a text that `parse` turns into this setting again.

        Strength and resample are not in it: a setting as text draws from noise.
        """
        walks, own_noise = self.sampler in WALKS, self.noise is None and defaults.noise is not None
        differs = {
            "schedule": not self.one_level and {self.schedule, defaults.schedule} != {"karras"},
            "eta": self.eta != 0,
            "guidance": self.guidance != 1 or (defaults.guided and defaults.guidance != 1),
            "step_size": walks and (self.step_size != defaults.step_size or own_noise),
            "noise": walks and self.noise is not None and self.noise != defaults.noise,
            "sigma_min": self.sigma_min != defaults.sigma_min,
            "sigma_max": self.sigma_max != defaults.sigma_max,
        }
        values = {key: getattr(self, key) for key in differs if differs[key]}
        words = [f"{key}={value if key == 'schedule' else f'{value:.12g}'}" for key, value in values.items()]
        return ":".join([f"{self.sampler}:{self.steps}", *words])

    @property
    def one_level(self) -> bool:
        """Whether the sampler stays at a single noise level."""
        return self.sigma_min == self.sigma_max

    @property
    def solver(self) -> Solver:
        """The row of the sampler."""
        return (WALKS if self.one_level else SOLVERS)[self.sampler]

    @property
    def steps_run(self) -> int:
        """How many of the steps are run: all, or the share that `strength` names."""
        return self.steps if self.strength is None else max(1, round(self.strength * self.steps))

    @property
    def sigmas(self) -> Tensor:
        """The noise levels of the steps that are run, (steps_run + 1,) float64, falling to 0.

        Raises:
            ValueError: the schedule has no such levels.
        """
        return self._every_level[self.steps - self.steps_run :]

    @property
    def _every_level(self) -> Tensor:
        return levels(self.schedule, self.steps, self.sigma_min, self.sigma_max, self.tuned)

    @property
    def nfe(self) -> int:
        """Network evaluations per image; of an energy, each with its gradient."""
        return self.solver.evaluations(self.steps_run) * self.resample * (2 if self.guidance != 1 else 1)

    def build(
        self,
        noise: Noise,
        like: Tensor,
        y: Tensor,
        *,
        energy: bool = False,
        no_class: int = 0,
        start: Tensor | None = None,
        keep: Tensor | None = None,
        see: See | None = None,
        accepted: Callable[[Tensor], None] = lambda _: None,
    ) -> Sampler:
        """Return the sampler that draws one image for each row of `like`.

        It starts from noise of the first level, or at one level from uniform noise. With pictures, from

        - `start` alone: from the pictures as they are. They count as having noise of sigma_max already.
        - `start` and a strength below 1: from the pictures with noise of the first level added (SDEdit).
        - `start` and `keep`: from noise, or by the strength. The pixels to keep are those of `start` in every
          guess of x_0 (`wrappers.inpainted`) and so in the result.

        Args:
            noise: a stream of its own for each image.
            like: (B, C, H, W), shape, dtype and device of the images;  y: (B,) int64, their classes.
            energy: the model answers with slopes, not with x_0.
            no_class: the y that means "no class", for guidance.
            start: (B, C, H, W), pictures in [-1, 1].
            keep: bool, which pixels of `start` stay, of a shape that broadcasts to that of start.
            see: gets every query with the guess of x_0, before guidance.
            accepted: gets which chains of `mala` took each step, (B,) bool.

        Raises:
            ValueError: the schedule has no such levels, a walk from level to level is to keep pixels, or
                strength, keep or resample is given without the pictures or the mask that it needs.

        Source: Meng et al. 2022, SDEdit (arXiv:2108.01073), algorithm 1.
        """
        if start is None and (keep is not None or self.strength is not None):
            raise ValueError("keep and strength need pictures to start from")
        if self.one_level:
            x = uniform(noise, like) if start is None or keep is not None else start
            x = torch.where(keep, start, x) if start is not None and keep is not None else x
            walk = self._at_one_level(x, y, noise, keep, accepted)
            return walk if see is None else watched_slopes(walk, see)
        x_t, sigmas = self._start(noise, like, start, keep)
        if self.sampler in WALKS:
            if keep is not None:
                raise ValueError(f"{self.sampler} from level to level cannot keep pixels")
            walk = annealed(x_t, sigmas, y, step_size=self.step_size, noise_std=self.noise, noise=noise)
            return walk if see is None else watched_slopes(walk, see)

        def solve(x_t: Tensor, sigmas: Tensor) -> Sampler:
            return sampler_named(self.sampler, x_t, sigmas, y, eta=self.eta, noise=noise)

        sampler = solve(x_t, sigmas)
        if self.resample > 1 and keep is None:
            raise ValueError("resample needs pixels to keep")
        if self.resample > 1:
            sampler = resampled(solve, x_t, sigmas, times=self.resample, noise=noise)
        if see is not None:
            sampler = watched(sampler, see)
        if keep is not None and start is not None:
            sampler = inpainted(sampler, start, keep)
        if energy:
            return denoised(sampler)
        return guided(sampler, self.guidance, no_class) if self.guidance != 1 else sampler

    def _start(
        self, noise: Noise, like: Tensor, start: Tensor | None, keep: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return x_t and the levels from its own down to 0."""
        sigmas = self.sigmas
        if start is not None and keep is None and self.strength is None:
            sigmas[0] = self.sigma_max
            return start, sigmas
        x_t = sigmas[0].item() * noise(like)
        if start is not None and self.strength is not None and self.strength < 1:
            x_t = start + x_t
        return x_t, sigmas

    def _at_one_level(
        self, x: Tensor, y: Tensor, noise: Noise, keep: Tensor | None, accepted: Callable[[Tensor], None]
    ) -> Sampler:
        sigma = self.sigma_max
        step: dict[str, Any] = {"steps": self.steps, "step_size": self.step_size * sigma**2, "noise": noise}
        if self.sampler == "mala":
            return mala(x, sigma, y, accepted=accepted, **step)
        return langevin(
            x,
            sigma,
            y,
            noise_std=None if self.noise is None else self.noise * sigma,
            gradient_max=self.gradient_max or math.inf,
            inside=partial(bounded, known=x, keep=keep),
            **step,
        )
