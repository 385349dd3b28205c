"""What a model is served with, and how a setting is written as text."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from genserve.sampling.schedules import Tuned
from genserve.sampling.solvers import WALKS


class BadSetting(ValueError):  # noqa: N818 (as BadRequest)
    """Says which field of a setting does not fit the model or another field."""

    def __init__(self, field: str, message: str, allowed: str) -> None:
        super().__init__(f"{field}: {message} (allowed: {allowed})")
        self.field, self.message, self.allowed = field, message, allowed


def refuse(why: str, **fields: Any) -> None:
    """Raise BadSetting for the first field that is given, because it means nothing here."""
    for name, value in fields.items():
        if value is not None:
            raise BadSetting(name, why, "leave it out")


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """Holds how a model draws if a request leaves everything open, and what a request may choose.

    Args:
        samplers: the names that it takes.
        sampler, steps, schedule, eta, guidance: as in `Setting`.
        guided: it takes a guidance other than 1.
        tuned: for its numbers of steps these come before sampler, schedule and eta.
        sigma_min, sigma_max: last and first noise level; equal if it knows one level only.
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
        """Whether the model knows a single noise level."""
        return self.sigma_min == self.sigma_max

    @property
    def keys(self) -> dict[str, type]:
        """The keys that a setting as text may have beside sampler and steps, with the type of each."""
        walks = self.samplers[0] in WALKS
        names = ["schedule", *([] if walks else ["guidance"]), "eta", "sigma_min", "sigma_max"]
        names += ["step_size", "noise"] if walks else []
        return {name: str if name == "schedule" else float for name in names}

    def tuned_for(self, steps: int) -> Tuned | None:
        """Return the tuned levels for this number of steps, if the model has some."""
        return next((tuned for tuned in self.tuned if tuned.steps == steps), None)

    def known(self, sampler: str) -> str:
        """Return the name of a sampler that this model takes.

        Raises:
            BadSetting: the model does not take it.
        """
        if sampler not in self.samplers:
            why = f"this model is not sampled by {sampler}"
            if self.one_level:
                why = "only langevin and mala stay at one noise level"
            raise BadSetting("sampler", why, ", ".join(self.samplers))
        return sampler

    def weight(self, guidance: float | None) -> float:
        """Return a guidance that this model takes, its own if none is given.

        Raises:
            BadSetting: the model takes only 1.
        """
        if guidance not in (None, 1) and not self.guided:
            why = "guidance is for diffusion models with classes"
            raise BadSetting("guidance", why, "1, or leave it out")
        usual = self.guidance if self.guided else 1.0
        return usual if guidance is None else guidance

    def walking(self, sampler: str, step_size: float | None, noise: float | None) -> dict[str, float | None]:
        """Return step size, noise and clamp of a Langevin sampler; nothing for a sampler that has none.

        Raises:
            BadSetting: the sampler does not take what is given.
        """
        if sampler not in WALKS:
            refuse(f"{sampler} has none", step_size=step_size, noise=noise)
            return {}
        if sampler == "mala":
            refuse("mala's noise follows from its step_size", noise=noise)
        elif noise is None and (self.one_level or step_size is None):
            noise = self.noise  # which goes with the model's own step size
        own = step_size or self.step_size
        return {"step_size": own, "noise": noise, "gradient_max": self.gradient_max}


def fields_of(text: str, keys: Mapping[str, type]) -> dict[str, Any]:
    """Return the fields in SAMPLER:STEPS[:KEY=VALUE]..., as keyword arguments of `Setting.of`.

    Args:
        keys: the keys that are allowed, with the type of each value.

    Raises:
        ValueError: the text has another form.
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
