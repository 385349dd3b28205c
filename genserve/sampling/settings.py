"""A setting: how images are drawn, with nothing left open. Everything that draws uses `Setting.build`.

A request, a setting as text (ddim:50:eta=1) and what a model is served with all become one through
`Setting.of`, so that what is left open means the same everywhere.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genserve.sampling.langevin import annealed, langevin, mala
from genserve.sampling.noise import Noise, uniform
from genserve.sampling.samplers import Sampler, See
from genserve.sampling.schedules import Tuned, levels
from genserve.sampling.solvers import SOLVERS, TAKE_ETA, WALKS, Solver, sampler_named
from genserve.sampling.wrappers import denoise, denoised, guided, inpainted, watched


class BadSetting(ValueError):  # noqa: N818 (as BadRequest)
    """A field of a setting that does not fit the model or another field."""

    def __init__(self, field: str, message: str, allowed: str) -> None:
        super().__init__(f"{field}: {message} (allowed: {allowed})")
        self.field, self.message, self.allowed = field, message, allowed


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """How a model is drawn from if nothing else is asked, and what may be asked of it.

    Args:
        samplers: the names that it takes.
        sampler, steps, schedule, eta, guidance: as in `Setting`.
        guided: it takes a guidance other than 1.
        tuned: for its numbers of steps these come before sampler, schedule and eta.
        sigma_min, sigma_max: last and first noise level; equal where it knows one level.
        step_size, noise, gradient_max: of `langevin` and `mala`, as in `Setting`.
    """

    samplers: tuple[str, ...]
    sampler: str
    steps: int
    schedule: str = "karras"
    eta: float = 0.0
    guidance: float = 1.0
    guided: bool = False
    tuned: tuple[Tuned, ...] = ()
    sigma_min: float
    sigma_max: float
    step_size: float = 1.0
    noise: float | None = None
    gradient_max: float | None = None

    @property
    def one_level(self) -> bool:
        """Whether there is a single noise level."""
        return self.sigma_min == self.sigma_max

    @property
    def keys(self) -> dict[str, type]:
        """What a setting as text may say beside sampler and steps."""
        walks = self.samplers[0] in WALKS
        names = ["schedule", *([] if walks else ["guidance"]), "eta", "sigma_min", "sigma_max"]
        names += ["step_size", "noise"] if walks else []
        return {name: str if name == "schedule" else float for name in names}

    def tuned_for(self, steps: int) -> Tuned | None:
        """Return the tuned levels for this number of steps, if there are any."""
        return next((tuned for tuned in self.tuned if tuned.steps == steps), None)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How images are drawn.

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

    def __post_init__(self) -> None:
        for name, good, allowed in (
            ("steps", self.steps >= 1, "at least 1"),
            ("eta", 0 <= self.eta <= 1, "0 to 1"),
            ("guidance", 0 <= self.guidance < math.inf, "0 or more"),
            ("step_size", 0 < self.step_size < math.inf, "above 0"),
            ("noise", self.noise is None or 0 <= self.noise < math.inf, "0 or more"),
            ("sigma_max", 0 < self.sigma_min <= self.sigma_max < math.inf, "sigma_min or more, both above 0"),
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
    ) -> "Setting":
        """Return the setting for drawing from noise; what is None comes from the defaults.

        If neither sampler, schedule nor eta is given, tuned levels for this number of steps come first. A
        sampler that is named alone draws no fresh noise (eta 0).

        Raises:
            BadSetting: a field does not fit the model or another field.
        """
        is_open = sampler is None and schedule is None and eta is None and not defaults.one_level
        steps = defaults.steps if steps is None else steps
        tuned = defaults.tuned_for(steps) if is_open or schedule == "tuned" else None
        name = sampler or (tuned or defaults).sampler
        if name not in defaults.samplers:
            why = f"this model is not sampled by {name}"
            if defaults.one_level:
                why = "only langevin and mala stay at one noise level"
            raise BadSetting("sampler", why, ", ".join(defaults.samplers))
        if guidance not in (None, 1) and not defaults.guided:
            why = "guidance is for diffusion models with classes"
            raise BadSetting("guidance", why, "1, or leave it out")
        values: dict[str, Any] = {
            "sampler": name,
            "steps": steps,
            "sigma_min": defaults.sigma_min if sigma_min is None else sigma_min,
            "sigma_max": defaults.sigma_max if sigma_max is None else sigma_max,
        }
        if name in WALKS:
            if name == "mala":
                _refuse("mala's noise follows from its step_size", noise=noise)
            elif noise is None and (defaults.one_level or step_size is None):
                noise = defaults.noise  # which goes with the model's own step size
            values |= {"noise": noise, "step_size": step_size or defaults.step_size}
            values |= {"gradient_max": defaults.gradient_max}
        else:
            _refuse(f"{name} has none", step_size=step_size, noise=noise)
        if defaults.one_level:
            _refuse(f"{name} stays at one noise level", eta=eta, schedule=schedule)
            return cls(**values)
        if name in TAKE_ETA:
            usual = (tuned or defaults).eta if sampler is None else 0.0
            values["eta"] = usual if eta is None else eta
        elif eta is not None:
            raise BadSetting("eta", f"{name} takes no eta", f"only with sampler {' or '.join(TAKE_ETA)}")
        usual = defaults.guidance if defaults.guided else 1.0
        values["guidance"] = usual if guidance is None else guidance
        schedule = schedule or ("tuned" if tuned else defaults.schedule)
        setting = cls(**values, schedule=schedule, tuned=defaults.tuned)
        try:
            sigmas = setting.sigmas
        except ValueError as error:
            allowed = f"other steps, or another schedule than {schedule}"
            raise BadSetting("steps", str(error), allowed) from error
        if not bool((sigmas.diff() < 0).all()):
            low, high = values["sigma_min"], values["sigma_max"]
            why = f"{steps} levels do not fit between {low:g} and {high:g}"
            raise BadSetting("steps", why, "fewer steps")
        return setting

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
        """Return a text that `parse` turns into this setting again."""
        walks, own_noise = self.sampler in WALKS, self.noise is None and defaults.noise is not None
        said = {
            "schedule": not self.one_level and {self.schedule, defaults.schedule} != {"karras"},
            "eta": self.eta != 0,
            "guidance": self.guidance != 1 or (defaults.guided and defaults.guidance != 1),
            "step_size": walks and (self.step_size != defaults.step_size or own_noise),
            "noise": walks and self.noise is not None and self.noise != defaults.noise,
            "sigma_min": self.sigma_min != defaults.sigma_min,
            "sigma_max": self.sigma_max != defaults.sigma_max,
        }
        values = {key: getattr(self, key) for key, differs in said.items() if differs}
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
    def sigmas(self) -> Tensor:
        """The noise levels, (steps + 1,) float64, falling to 0; raises ValueError if there are no such."""
        return levels(self.schedule, self.steps, self.sigma_min, self.sigma_max, self.tuned)

    @property
    def nfe(self) -> int:
        """Network evaluations per image; of an energy, each with its gradient."""
        return self.solver.evaluations(self.steps) * (2 if self.guidance != 1 else 1)

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

        From noise of the first level, which is what the sampler is told; at one level from uniform noise.

        Args:
            noise: a stream of its own for each image.
            like: (B, C, H, W), shape, dtype and device of the images.
            y: (B,) int64, their classes.
            energy: the model answers with slopes, not with x_0.
            no_class: the y that means "no class", for guidance.
            start: (B, C, H, W), pictures to start from. They are taken to have noise of sigma_max, so
                that is exactly the first level; with `keep` they are what stays, and the rest starts from
                noise.
            keep: bool, which pixels of `start` stay, of a shape that meets that of start.
            see: is shown every query and the guess of x_0, before guidance.
            accepted: is shown which chains of `mala` took each step, (B,) bool.

        Raises:
            ValueError: the schedule has no such levels, or an annealed walk is to keep pixels.
        """
        if self.one_level:
            return _seen(self._at_one_level(noise, like, y, start, keep, accepted), see)
        sigmas = self.sigmas
        if start is not None and keep is None:
            sigmas[0] = self.sigma_max
            x_t = start
        else:
            x_t = sigmas[0].item() * noise(like)
        if self.sampler in WALKS:
            if keep is not None:
                raise ValueError(f"{self.sampler} from level to level cannot keep pixels")
            walk = annealed(x_t, sigmas, y, step_size=self.step_size, noise_std=self.noise, noise=noise)
            return _seen(walk, see)
        sampler = sampler_named(self.sampler, x_t, sigmas, y, eta=self.eta, noise=noise)
        if see is not None:
            sampler = watched(sampler, see)
        if keep is not None and start is not None:
            sampler = inpainted(sampler, start, keep)
        if energy:
            return denoised(sampler)
        return guided(sampler, self.guidance, no_class) if self.guidance != 1 else sampler

    def _at_one_level(
        self,
        noise: Noise,
        like: Tensor,
        y: Tensor,
        start: Tensor | None,
        keep: Tensor | None,
        accepted: Callable[[Tensor], None],
    ) -> Sampler:
        x = uniform(noise, like) if start is None else start
        if start is not None and keep is not None:
            x = torch.where(keep, start, uniform(noise, like))
        sigma, known = self.sigma_max, x

        def inside(x: Tensor) -> Tensor:
            x = x.clamp(-1, 1)
            return x if keep is None else torch.where(keep, known, x)

        step: dict[str, Any] = {"steps": self.steps, "step_size": self.step_size * sigma**2, "noise": noise}
        if self.sampler == "mala":
            return mala(x, sigma, y, accepted=accepted, **step)
        return langevin(
            x,
            sigma,
            y,
            noise_std=None if self.noise is None else self.noise * sigma,
            gradient_max=self.gradient_max or math.inf,
            inside=inside,
            **step,
        )


def _seen(sampler: Sampler, see: See | None) -> Sampler:
    """Return a sampler of slopes that is watched by what wants to see guesses of x_0."""
    if see is None:
        return sampler
    return watched(sampler, lambda query, slope: see(query, denoise(query, slope)))


def fields_of(text: str, keys: Mapping[str, type]) -> dict[str, Any]:
    """Return the fields that SAMPLER:STEPS[:KEY=VALUE]... names, of those with these keys.

    Raises:
        ValueError: it is no such text.
    """
    sampler, _, rest = text.partition(":")
    steps, *pairs = rest.split(":")
    words = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    known = len(words) == len(pairs) and words.keys() <= keys.keys()
    if not sampler or not steps.isdecimal() or not known:
        raise ValueError(
            f"a setting is SAMPLER:STEPS[:KEY=VALUE]..., KEY one of {', '.join(keys)}; got {text!r}"
        )
    try:
        values = {key: keys[key](value) for key, value in words.items()}
    except ValueError as error:
        raise ValueError(f"a setting's values are numbers; got {text!r}") from error
    return {"sampler": sampler, "steps": int(steps)} | values


def _refuse(why: str, **fields: Any) -> None:
    """Raise BadSetting for the first field that is given."""
    for name, value in fields.items():
        if value is not None:
            raise BadSetting(name, why, "leave it out")
