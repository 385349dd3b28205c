"""What a run is served with: its serving.json, on top of what suits its network."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from genserve.files import digest, parsing, read_json
from genserve.runs.contract import Spec, Walk, tuned_in
from genserve.runs.directory import model_config, trained_with

# the keys of serving.json, and of its `walk`
SERVING = {"sampler", "eta", "schedule", "steps", "guidance", "tuned", "walk", "quality"}
WALK = {field.name for field in fields(Walk)} - {"plain", "read_sigma", "energies"}


def spec_of(directory: Path) -> Spec:
    """Return the contract of a run: the model, and the settings that it is served with.

    Raises:
        FileNotFoundError, OSError, ValueError: as `model_config`; or serving.json or energies.json holds
            what this version does not read.
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
    """Return the settings that a run is served with: its serving.json, on top of what suits its network.

    Raises:
        FileNotFoundError, OSError, ValueError: as `model_config`; or serving.json has an unknown key.
    """
    model, path = model_config(directory), directory / "serving.json"
    usual = dict(model.network.serving)
    if "steps" not in usual:
        usual["steps"] = _chains(directory)["final_steps"]
    serving = read_json(path) if path.is_file() else {}
    with parsing(path, "what a model can be served with"):
        walk_keys = WALK if model.kind.slopes else set()
        for part, keys in ((serving, SERVING), (serving.get("walk", {}), walk_keys)):
            if unknown := sorted(part.keys() - keys):
                allowed = ", ".join(sorted(keys)) or "nothing"
                raise ValueError(f"it has an unknown key {unknown[0]!r} (allowed: {allowed})")
        tuned_in(serving)
    return usual | serving


def _chains(directory: Path) -> dict[str, Any]:
    """Return the Langevin chains that an energy without noise levels was trained with."""
    chains, names = trained_with(directory, "langevin"), ("step_size", "noise_std", "gradient_max")
    with parsing(directory / "config.json", "the configuration of an energy without noise levels"):
        return {name: chains[name] for name in (*names, "final_steps")}


def walk_of(directory: Path) -> Walk:
    """Return how to walk on a run's energy: as in training, unless serving.json says otherwise.

    Raises:
        FileNotFoundError, OSError, ValueError: as `serving_of`; or energies.json is not a table of energies.
    """
    one_level = model_config(directory).network.one_level
    energies_file = directory / "energies.json"
    table: dict[str, Any] = {"sigma": 1.0 if one_level else 0.5, "quantiles": []}
    if energies_file.is_file():
        table = read_json(energies_file)
    with parsing(energies_file, "a table of energies"):
        walk: dict[str, Any] = {
            "plain": one_level,
            "read_sigma": float(table["sigma"]),
            "energies": tuple(map(float, table["quantiles"])),
        }
    if one_level:
        chains = _chains(directory)
        del chains["final_steps"]  # the steps of `serving_of`
        walk |= {"refine_step_size": chains["step_size"], "restore_sigma": 1.0} | chains
    serving = serving_of(directory)
    with parsing(directory / "serving.json", "what this energy can be served with"):
        return Walk(**walk | serving.get("walk", {}))
