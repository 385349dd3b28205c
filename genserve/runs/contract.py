"""model.json: what a server must know of a model."""

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

import genserve
from genserve.families import FAMILIES, SERVED, Family, load
from genserve.files import parsing, read_json
from genserve.sampling.defaults import Defaults
from genserve.sampling.samplers import Query
from genserve.sampling.schedules import SCHEDULES, Tuned
from genserve.sampling.solvers import SAMPLERS, SOLVERS, TAKE_ETA, WALKS

FORMAT = 1  # of model.json
Device = torch.device  # contracts have a field torch


@dataclass(frozen=True, kw_only=True)
class Walk:
    """How an energy is read, and how chains walk on it if a request does not say otherwise.

    Step sizes are in units of sigma**2, noise in units of sigma. The steps of a drawing are Spec.steps.
    """

    plain: bool  # it knows no noise levels, and is evaluated at sigma = 1
    read_sigma: float  # the level at which pictures are scored, refined and explained
    restore_sigma: float = 0.5  # how noisy a picture is taken to be
    restore_steps: int = 25
    step_size: float = 0.5
    noise_std: float | None = None  # None is the default of `annealed`, and of `langevin` at one level
    gradient_max: float | None = None  # every component of the gradient is clamped to this
    refine_steps: int = 20
    refine_step_size: float = 0.1
    energies: tuple[float, ...] = ()  # of training images at read_sigma: evenly spaced quantiles, rising

    def rank(self, energy: float) -> float | None:
        """Return the share of training images with a lower energy, 0 to 1; None if it is not known."""
        return round(bisect_left(self.energies, energy) / len(self.energies), 4) if self.energies else None


@dataclass(frozen=True, kw_only=True)
class Contract(ABC):
    """model.json: what a server must know of a model, and all that it may know; a class for each family."""

    format: int = FORMAT
    name: str
    family: str
    torch: str = ""  # the version that wrote model.pt
    genserve: str = genserve.__version__
    weights: str = ""  # digest of weights.safetensors, which tells two models of one name apart
    quality: dict[str, Any] = field(default_factory=dict)  # as measured on what was not trained on

    def __post_init__(self) -> None:
        if self.family not in SERVED:
            raise ValueError(f"model.json: family must be one of {', '.join(SERVED)}, got {self.family!r}")

    @property
    def kind(self) -> Family:
        """The row of its family."""
        return FAMILIES[self.family]

    @abstractmethod
    def examples(self, n: int, device: Device) -> list[Any]:
        """Return a query of each kind, n items each; the first is of the kind that there is most of."""

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> "Contract":
        """Return the contract in a JSON object.

        Raises:
            ValueError, TypeError, LookupError, AttributeError: it is not a contract.
        """
        return cls(**{name: as_tuple(part) for name, part in value.items()})

    def described(self) -> dict[str, Any]:
        """Return what a client is told of the model."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Spec(Contract):
    """The contract of a model that draws pictures along noise levels.

    `sampler`, `eta`, `schedule`, `steps` and `guidance` are the defaults of a request; for a number of steps
    that is in `tuned`, the tuned sampler, eta and levels come first.
    """

    shape: tuple[int, int, int]  # (C, H, W)
    classes: tuple[str, ...]  # () for none
    sigma_min: float
    sigma_max: float
    sampler: str = "dpmpp_2m"
    eta: float = 0.0
    schedule: str = "karras"
    steps: int = 18
    guidance: float = 1.0
    tuned: tuple[Tuned, ...] = ()  # what the schedule `tuned` stands for
    walk: Walk | None = None  # of an energy

    def __post_init__(self) -> None:
        super().__post_init__()
        samplers = tuple(SOLVERS) if self.kind.slopes else SAMPLERS
        for name, value, allowed in (
            ("sampler", self.sampler, samplers),
            ("schedule", self.schedule, tuple(name for name in SCHEDULES if name != "tuned")),
            *(("tuned sampler", tuned.sampler, samplers) for tuned in self.tuned),
        ):
            if value not in allowed:
                raise ValueError(f"model.json: {name} must be one of {', '.join(allowed)}, got {value!r}")
        steps = [tuned.steps for tuned in self.tuned]
        if twice := sorted({n for n in steps if steps.count(n) > 1}):
            raise ValueError(f"model.json: tuned has {twice[0]} steps twice")
        if self.eta and self.sampler not in TAKE_ETA:
            raise ValueError(f"model.json: {self.sampler} takes no eta, got {self.eta}")

    @property
    def no_class(self) -> int:
        """The y that means "no class"."""
        return len(self.classes)

    def examples(self, n: int, device: Device) -> list[Any]:
        x, one = torch.zeros(n, *self.shape, device=device), torch.ones(n, device=device)
        return [Query(x, one, torch.zeros(n, dtype=torch.long, device=device))]

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> "Spec":
        walk = value.get("walk")
        walk = Walk(**walk | {"energies": tuple(walk["energies"])}) if walk else None
        parts = {"shape": tuple(value["shape"]), "classes": tuple(value["classes"]), "walk": walk}
        return cls(**dict(value) | parts | {"tuned": tuned_in(value)})

    def described(self) -> dict[str, Any]:
        description = super().described()
        if self.walk:  # quartiles are enough to look at
            energies = self.walk.energies
            description["walk"]["energies"] = energies[:: max(1, len(energies) // 4)]
        return description

    @property
    def defaults(self) -> Defaults:
        """The setting that a request gets if it leaves all open."""
        samplers = tuple(SOLVERS) if self.kind.slopes else SAMPLERS
        own: dict[str, Any] = {}
        if self.walk is not None:
            own = {"step_size": self.walk.step_size, "noise": self.walk.noise_std}
            own |= {"gradient_max": self.walk.gradient_max}
        return Defaults(
            samplers=tuple(WALKS) if self.sigma_min == self.sigma_max else samplers,
            sampler=self.sampler,
            steps=self.steps,
            schedule=self.schedule,
            eta=self.eta,
            guidance=self.guidance,
            guided=self.kind.guided and bool(self.classes),
            tuned=self.tuned,
            sigma_min=self.sigma_min,
            sigma_max=self.sigma_max,
            **own,
        )


def read_spec(path: Path) -> Contract:
    """Return model.json, as the class of its family.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is torn, or of a format or family that this version does not read.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path.name} is missing beside the model: build the archive with scripts/build_archives"
        )
    value = read_json(path)
    if value.get("format") != FORMAT:
        raise ValueError(
            f"{path.name} has format {value.get('format')!r}; genserve {genserve.__version__} reads {FORMAT}"
        )
    with parsing(path, "a contract that this version reads"):
        return spec_in(value)


def spec_in(value: Mapping[str, Any]) -> Contract:
    """Return the contract in a JSON object.

    Raises:
        ValueError, TypeError, LookupError, AttributeError: it is not a contract.
    """
    if value["family"] not in SERVED:
        raise ValueError(f"family must be one of {', '.join(SERVED)}, got {value['family']!r}")
    contract: Contract = load(FAMILIES[value["family"]].contract).of(value)
    return contract


def as_tuple(value: Any) -> Any:
    """Return a list of JSON, and those in it, as tuples; anything else as it is."""
    return tuple(map(as_tuple, value)) if isinstance(value, list) else value


def tuned_in(value: Mapping[str, Any]) -> tuple[Tuned, ...]:
    """Return the tuned noise levels of model.json, serving.json or a server's description."""
    return tuple(Tuned(**row | {"sigmas": tuple(row["sigmas"])}) for row in value.get("tuned", ()))
