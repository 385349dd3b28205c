"""What a run is served with: its serving.json, on top of what suits its kind."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from genserve.files import digest, parsing, read_json
from genserve.runs.contract import Spec, Walk, tuned_in
from genserve.runs.directory import model_config, trained_with

# what serving.json may say, and its `walk`
SERVING = {"sampler", "eta", "schedule", "steps", "guidance", "tuned", "walk", "quality"}


WALK = {one.name for one in fields(Walk)} - {"plain", "read_sigma", "energies"}


def spec_of(directory: Path) -> Spec:
    """Return the contract of a run: what it is, and what its serving.json says it is served with.

    Raises:
        FileNotFoundError, ValueError: as `run.model_config`, or serving.json says what nobody reads.
    """
    model = model_config(directory)
    serving = serving_of(directory)
    serving["tuned"] = tuned_in(serving)
    if model.kind.slopes:
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
    model, path = model_config(directory), directory / "serving.json"
    usual: dict[str, Any] = {"sampler": "dpmpp_2m", "steps": 18}
    if model.kind.slopes:
        usual = {"sampler": "ddim", "eta": 1.0, "steps": 25}
        if model.energy == "plain":
            usual = {"sampler": "langevin", "steps": _chains(directory)["final_steps"]}
    serving = read_json(path) if path.is_file() else {}
    with parsing(path, "what a model can be served with"):
        walk_keys = WALK if model.kind.slopes else set()
        for part, keys in ((serving, SERVING), (serving.get("walk", {}), walk_keys)):
            if unknown := sorted(part.keys() - keys):
                allowed = ", ".join(sorted(keys)) or "nothing"
                raise ValueError(f"it says {unknown[0]!r}, which nobody reads there (allowed: {allowed})")
        tuned_in(serving)
    return usual | serving


def _chains(directory: Path) -> dict[str, Any]:
    """Return the Langevin chains that an energy without noise levels was trained with."""
    chains, names = trained_with(directory, "langevin"), ("step_size", "noise_std", "gradient_max")
    with parsing(directory / "config.json", "the configuration of an energy without noise levels"):
        return {name: chains[name] for name in (*names, "final_steps")}


def walk_of(directory: Path) -> Walk:
    """Return how a run's energy is walked on: as in training, but for what serving.json says.

    Raises:
        FileNotFoundError, ValueError: as `run.model_config`.
    """
    model = model_config(directory)
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
