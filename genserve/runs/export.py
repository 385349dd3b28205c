"""From a run directory to what an archive carries: model.pt (TorchScript) and model.json (its contract).

python -m genserve.runs.export weights/diffusion-mnist out/
"""

import io
import sys
import warnings
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

import genserve
from genserve.cli import plain_errors
from genserve.files import digest, parsing, read_json
from genserve.runs import directory as run
from genserve.sampling.samplers import SAMPLERS, TAKE_ETA
from genserve.sampling.schedules import SCHEDULES, Tuned

FORMAT = 1  # of model.json
FAMILIES = {"diffusion": SAMPLERS, "energy": ("langevin", *SAMPLERS)}  # and their samplers


@dataclass(frozen=True, kw_only=True)
class Walk:
    """How an energy is read and walked on: what a request gets that does not say otherwise.

    Step sizes are in units of sigma**2, noise in units of sigma. How many steps it draws in is Spec.steps.
    """

    plain: bool  # knows no noise levels, and is asked at sigma = 1
    read_sigma: float  # the level at which pictures are scored, refined and explained
    restore_sigma: float = 0.5  # how noisy a picture is taken to be
    restore_steps: int = 25
    step_size: float = 0.5
    noise_std: float | None = None  # none is what suits: see `annealed`, and `langevin` at one level
    gradient_max: float | None = None  # every component of the gradient is clamped to this
    refine_steps: int = 20
    refine_step_size: float = 0.1
    energies: tuple[float, ...] = ()  # of training images at read_sigma: evenly spaced quantiles, rising

    def rank(self, energy: float) -> float | None:
        """Return the share of training images of a lower energy, 0 to 1; none where it is not known."""
        return round(bisect_left(self.energies, energy) / len(self.energies), 4) if self.energies else None


@dataclass(frozen=True, kw_only=True)
class Spec:
    """model.json: what a server must know of a model, and all it may know.

    `sampler`, `eta`, `schedule`, `steps`, `guidance` are what a request gets that does not say otherwise; for
    a number of steps that `tuned` has, that comes before sampler, eta and schedule.
    """

    format: int = FORMAT
    name: str
    family: str
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
    torch: str = ""  # the version that wrote model.pt
    genserve: str = genserve.__version__
    weights: str = ""  # digest of weights.safetensors: two models of one name are told apart by it
    quality: dict[str, Any] = field(default_factory=dict)  # as measured by scripts/evaluate.py

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("family", self.family, tuple(FAMILIES)),
            ("sampler", self.sampler, FAMILIES.get(self.family, ())),
            ("schedule", self.schedule, tuple(name for name in SCHEDULES if name != "tuned")),
            *(("tuned sampler", found.sampler, FAMILIES.get(self.family, ())) for found in self.tuned),
        ):
            if value not in allowed:
                raise ValueError(f"model.json: {name} must be one of {', '.join(allowed)}, got {value!r}")
        steps = [way.steps for way in self.tuned]
        if twice := sorted({n for n in steps if steps.count(n) > 1}):
            raise ValueError(f"model.json: tuned has {twice[0]} steps twice")
        if self.eta and self.sampler not in TAKE_ETA:
            raise ValueError(f"model.json: {self.sampler} takes no eta, got {self.eta}")

    @property
    def no_class(self) -> int:
        """The y that means "no class"."""
        return len(self.classes)

    def tuned_for(self, steps: int) -> Tuned | None:
        """Return what was found for so many steps, if anything was."""
        return next((found for found in self.tuned if found.steps == steps), None)


# what serving.json may say, and its `walk`
SERVING = {"sampler", "eta", "schedule", "steps", "guidance", "tuned", "walk", "quality"}
WALK = {one.name for one in fields(Walk)} - {"plain", "read_sigma", "energies"}


def read_spec(path: Path) -> Spec:
    """Return model.json.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is torn, or of a format or family this version does not know.
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
        walk = value.get("walk")
        walk = Walk(**walk | {"energies": tuple(walk["energies"])}) if walk else None
        named = {"shape": tuple(value["shape"]), "classes": tuple(value["classes"]), "walk": walk}
        return Spec(**value | named | {"tuned": tuned_in(value)})


def tuned_in(value: Mapping[str, Any]) -> tuple[Tuned, ...]:
    """Return the tuned noise levels of model.json, serving.json or a server's description."""
    return tuple(Tuned(**found | {"sigmas": tuple(found["sigmas"])}) for found in value.get("tuned", ()))


def export(directory: Path, out: Path) -> Spec:
    """Write model.pt and model.json for a run; its serving.json, if there is one, has defaults and quality.

    The TorchScript is the mathematical object itself, preconditioning inside: (x, sigma, y) -> E[x_0 | x] or,
    of an energy, (x, sigma, y) -> E.

    Raises:
        FileNotFoundError, ValueError: as `run.load_model`.
    """
    trained = run.load_model(directory)
    spec = spec_of(directory)
    out.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    with torchscript():
        torch.jit.save(torch.jit.script(trained), buffer)
    _without_debug(buffer, out / "model.pt")
    run.write_json(out / "model.json", asdict(spec))
    return spec


def spec_of(directory: Path) -> Spec:
    """Return the contract of a run: what it is, and what its serving.json says it is served with.

    Raises:
        FileNotFoundError, ValueError: as `run.model_config`, or serving.json says what nobody reads.
    """
    model = run.model_config(directory)
    serving = serving_of(directory)
    serving["tuned"] = tuned_in(serving)
    if model.family == "energy":
        serving["walk"] = walk_of(directory)
    weights = digest(directory / "weights.safetensors")[:12]
    with parsing(directory / "serving.json", "what this model can be served with"):
        return Spec(
            name=directory.name,
            family=model.family,
            shape=model.shape,
            classes=model.classes,
            sigma_min=model.sigma_min,
            sigma_max=model.sigma_max,
            torch=torch.__version__.split("+")[0],
            weights=weights,
            **serving,
        )


def serving_of(directory: Path) -> dict[str, Any]:
    """Return what a run is served with: its serving.json, on top of what suits its kind.

    Raises:
        FileNotFoundError, ValueError: as `run.model_config`.
    """
    model, path = run.model_config(directory), directory / "serving.json"
    usual: dict[str, Any] = {"sampler": "dpmpp_2m", "steps": 18}
    if model.family == "energy":
        usual = {"sampler": "ddim", "eta": 1.0, "steps": 25}
        if model.energy == "plain":
            usual = {"sampler": "langevin", "steps": _chains(directory)["final_steps"]}
    serving = read_json(path) if path.is_file() else {}
    with parsing(path, "what a model can be served with"):
        walk_keys = WALK if model.family == "energy" else set()
        for part, keys in ((serving, SERVING), (serving.get("walk", {}), walk_keys)):
            if unknown := sorted(part.keys() - keys):
                allowed = ", ".join(sorted(keys)) or "nothing"
                raise ValueError(f"it says {unknown[0]!r}, which nobody reads there (allowed: {allowed})")
        tuned_in(serving)
    return usual | serving


def _chains(directory: Path) -> dict[str, Any]:
    """Return the Langevin chains that an energy without noise levels was trained with."""
    chains, names = run.trained_with(directory, "langevin"), ("step_size", "noise_std", "gradient_max")
    with parsing(directory / "config.json", "the configuration of an energy without noise levels"):
        return {name: chains[name] for name in (*names, "final_steps")}


def walk_of(directory: Path) -> Walk:
    """Return how a run's energy is walked on: as in training, but for what serving.json says.

    Raises:
        FileNotFoundError, ValueError: as `run.model_config`.
    """
    model = run.model_config(directory)
    energies_file = directory / "energies.json"
    read: dict[str, Any] = {"sigma": 1.0 if model.energy == "plain" else 0.5, "quantiles": []}
    if energies_file.is_file():
        read = read_json(energies_file)
    with parsing(energies_file, "a table of energies"):
        found: dict[str, Any] = {
            "plain": model.energy == "plain",
            "read_sigma": float(read["sigma"]),
            "energies": tuple(map(float, read["quantiles"])),
        }
    if found["plain"]:
        chains = _chains(directory)
        del chains["final_steps"]  # which serving_of knows
        found |= {"refine_step_size": chains["step_size"], "restore_sigma": 1.0} | chains
    serving = serving_of(directory)
    with parsing(directory / "serving.json", "what this energy can be served with"):
        return Walk(**found | serving.get("walk", {}))


@contextmanager
def torchscript() -> Iterator[None]:
    """Silence torch about TorchScript: it would rather see torch.export, which TorchServe does not load."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*deprecated", category=DeprecationWarning)
        yield


def _without_debug(source: io.BytesIO, path: Path) -> None:
    """Copy a TorchScript file without its debug records: they hold the paths of the machine that wrote it."""
    source.seek(0)
    reader = torch._C.PyTorchFileReader(source)
    with run.atomic_for_torch(path) as file:
        writer = torch._C.PyTorchFileWriter(file)
        for name in reader.get_all_records():
            if not name.endswith(".debug_pkl") and name not in (
                "version",
                "byteorder",
                ".data/version",
                ".data/serialization_id",
            ):
                record = reader.get_record(name)
                writer.write_record(name, record, len(record))
        writer.write_end_of_file()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m genserve.runs.export RUN OUTPUT")
    with plain_errors():
        export(Path(sys.argv[1]), Path(sys.argv[2]))
