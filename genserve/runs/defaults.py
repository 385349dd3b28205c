"""What a run is served with: its serving.json, on top of what suits its network."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from genserve.families import FAMILIES, load
from genserve.files import digest, parsing, read_json
from genserve.language.tokens import read_tokens
from genserve.runs.contract import Contract, Spec, Walk, as_tuple, tuned_in
from genserve.runs.directory import config_of, model_config, read_words, trained_with

# the keys of serving.json, and of its `walk`
SERVING = {"sampler", "eta", "schedule", "steps", "guidance", "tuned", "walk", "quality"}
WALK = {field.name for field in fields(Walk)} - {"plain", "read_sigma", "energies"}


def contract_of(directory: Path) -> Contract:
    """Return the contract of a run, whatever its family.

    Raises:
        FileNotFoundError, OSError, ValueError: as `config_of`; or the run is of a family that is not served,
            or its serving.json holds what this version does not read.
    """
    name = config_of(directory).family
    family = FAMILIES[name]
    if not family.request:
        raise ValueError(f"{directory} holds a model of family {name!r}, which is not served")
    contract: Contract = load(family.served)(directory)
    return contract


def words_contract_of(directory: Path) -> Contract:
    """Return the contract of vectors of words; raises as `contract_of` and `read_words`."""
    return plain_contract_of(directory, words=read_words(directory))


def text_contract_of(directory: Path) -> Contract:
    """Return the contract of a language model; raises as `contract_of` and `read_tokens`."""
    tokens = read_tokens(directory)
    network: Any = config_of(directory).build()
    start = network.start(1)
    state = {"state": tuple(start.shape[1:]), "orders": getattr(network, "order", 0)}
    if not start.is_floating_point():
        state["initial"] = tuple(start.flatten().tolist())
    return plain_contract_of(directory, kind_of_tokens=tokens.kind, tokens=tokens.tokens, **state)


def plain_contract_of(directory: Path, **more: Any) -> Contract:
    """Return the contract of a run of a family without noise levels; raises as `contract_of`.

    What the contract names and the configuration has comes from there, the rest from serving.json.

    Args:
        more: fields that come from other files.
    """
    config, path = config_of(directory), directory / "serving.json"
    kind = load(FAMILIES[config.family].contract)
    names = {one.name for one in fields(kind)}
    known = {name: getattr(config, name) for name in names if hasattr(config, name)} | identity(directory)
    known |= more
    serving = read_json(path) if path.is_file() else {}
    with parsing(path, "what this model can be served with"):
        if unknown := sorted(serving.keys() - (names - known.keys())):
            allowed = ", ".join(sorted(names - known.keys()))
            raise ValueError(f"it has an unknown key {unknown[0]!r} (allowed: {allowed})")
        contract: Contract = kind(**known | {name: as_tuple(value) for name, value in serving.items()})
    return contract


def identity(directory: Path) -> dict[str, Any]:
    """Return the fields of a contract that say which model it is of."""
    return {
        "name": directory.name,
        "torch": torch.__version__.split("+")[0],
        "weights": digest(directory / "weights.safetensors")[:12],
    }


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
    with parsing(directory / "serving.json", "what this model can be served with"):
        return Spec(
            family=model.family,
            shape=model.shape,
            classes=model.classes,
            sigma_min=model.sigma_min,
            sigma_max=model.sigma_max,
            **identity(directory),
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
