"""Check what a client wants a training program to do, by the program's own configuration class."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from genserve.gateway.jobs.bounds import check_bounds
from genserve.gateway.options import Options
from genserve.learning.programs import settings_of
from genserve.places import PROJECT
from genserve.serving.fields import BadRequest, title

OURS = ("name", "output", "threads")  # settings that are not a client's
RUNS = ("start_from", "teacher", "classifier")  # settings that name a run directory
ROOT = "data.root"  # the setting that names a folder of data
PRIOR_EPOCHS = 3  # of an autoencoder, as in vae-mnist


def configurations(options: Options) -> dict[str, Path]:
    """Return the files that a job may name, by their names."""
    return {path.stem: path for path in sorted(options.configs.glob("*.yaml"))}


def shipped_runs() -> dict[str, str]:
    """Return the runs with weights that genserve ships, by their names, as a program is given them."""
    configs = sorted((PROJECT / "weights").glob("*/config.json"))
    return {path.parent.name: f"weights/{path.parent.name}" for path in configs}


def checked(
    options: Options, program: str, config: str | None, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Return all settings of a run, as the program reads them from a file.

    Args:
        program: one of `genserve.learning.programs`.
        config: the name of a configuration; None for the program's defaults.
        overrides: what differs from it, nested or with dotted keys.

    Raises:
        BadRequest: the first key that is wrong, with what is allowed.
    """
    kind = settings_of(program)
    base = _read(options, kind, config) if config is not None else {}
    changes = _nested(overrides)
    _check_keys(kind, changes, "overrides.")
    for name in OURS:
        if name in changes:
            raise BadRequest(f"overrides.{name}", "the gateway chooses it", _names(kind))
    settings = _merged(base, _placed(options, changes))
    _set_root(options, kind, settings)
    result = asdict(_instance(program, settings, changes))
    check_bounds(result)
    return result


def _read(options: Options, kind: Any, name: str) -> dict[str, Any]:
    known = configurations(options)
    if name not in known:
        raise BadRequest("config", "there is no such configuration", ", ".join(known))
    try:
        values = yaml.safe_load(known[name].read_text()) or {}
        if not isinstance(values, dict):
            raise ValueError("it is no mapping")
        _check_keys(kind, values, "")
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BadRequest(
            "config", f"{name} is not one of this program ({error})", ", ".join(known)
        ) from error
    return values


def _nested(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with their dotted keys resolved: {"net.patch": 1} is {"net": {"patch": 1}}."""
    result: dict[str, Any] = {}
    for key, value in overrides.items():
        place = result
        *groups, last = key.split(".")
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                raise BadRequest(f"overrides.{title(key)}", "it is given twice")
        if last in place:
            raise BadRequest(f"overrides.{title(key)}", "it is given twice")
        place[last] = dict(value) if isinstance(value, dict) else value
    return result


def _check_keys(kind: Any, values: Mapping[str, Any], prefix: str) -> None:
    """Raise BadRequest unless every key is a setting of the class, groups of settings included."""
    known = {each.name: each.type for each in fields(kind)}
    for name, value in values.items():
        if name not in known:
            raise BadRequest(f"{prefix}{title(str(name))}", "there is no such setting", _names(kind))
        if is_dataclass(group := known[name]):
            if not isinstance(value, dict):
                raise BadRequest(f"{prefix}{name}", "must be an object", _names(group))
            _check_keys(group, value, f"{prefix}{name}.")


def _names(kind: Any) -> str:
    return ", ".join(each.name for each in fields(kind) if each.name not in OURS)


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for name, value in changes.items():
        before = result.get(name)
        result[name] = (
            _merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
        )
    return result


# ---- paths -------------------------------------------------------------------------------------------------


def _placed(options: Options, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a client's settings with the paths that they stand for.

    Raises:
        BadRequest: one would lie elsewhere than where a client may look.
    """
    result = dict(changes)
    known = shipped_runs()
    for name in RUNS:
        if (value := result.get(name)) is not None:
            chosen = str(value).removeprefix("weights/")
            if chosen not in known:
                raise BadRequest(f"overrides.{name}", "there are no such shipped weights", ", ".join(known))
            result[name] = known[chosen]
    if (root := result.get("data", {}).get("root")) is not None:
        result["data"] = {**result["data"], "root": str(_below(options.data, root))}
    return result


def _below(folder: Path, value: Any) -> Path:
    """Return the place of a client's path below a folder.

    Links that the operator has put there may lead out of it.
    """
    path = PurePosixPath(value) if isinstance(value, str) and "\0" not in value else PurePosixPath("..")
    allowed = "a path below the folder of data sets, without '..'"
    if path.is_absolute() or ".." in path.parts or "\\" in str(path):
        raise BadRequest(f"overrides.{ROOT}", "it is no place that a job may read", allowed)
    try:
        if not (folder / path).exists():
            raise BadRequest(f"overrides.{ROOT}", "there is no such file or folder", allowed)
    except (OSError, ValueError):  # too long, or no name for this file system
        raise BadRequest(f"overrides.{ROOT}", "there is no such file or folder", allowed) from None
    return (folder / path).absolute()


def _set_root(options: Options, kind: Any, settings: dict[str, Any]) -> None:
    """Have data sets be read from the operator's folder where the program would use its usual one."""
    group: Any = next((each.type for each in fields(kind) if each.name == "data"), None)
    usual = next((each.default for each in fields(group) if each.name == "root"), None) if group else None
    if usual is not None and settings.get("data", {}).get("root", usual) == usual:
        settings["data"] = {**settings.get("data", {}), "root": str(options.data.absolute())}


# ---- the class itself --------------------------------------------------------------------------------------


@cache
def _adapter(program: str) -> TypeAdapter[Any]:
    return TypeAdapter(settings_of(program))


def _instance(program: str, settings: Mapping[str, Any], changes: Mapping[str, Any]) -> Any:
    """Return the program's configuration.

    Raises:
        BadRequest: a value has another type, or the class refuses it.
    """
    try:
        text = json.dumps(settings, allow_nan=False)
    except ValueError:
        raise BadRequest("overrides", "every number must be finite") from None
    try:
        return _adapter(program).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    keys = [str(part) for part in first["loc"] if isinstance(part, str)]
    named = ".".join(keys) if first["type"] != "value_error" else message.split()[0]
    place = "overrides" if _has(changes, named) else "config"
    known = settings_of(program)
    raise BadRequest(f"{place}.{named}", message, "" if _is_setting(known, named) else _names(known))


def shortened(program: str, overrides: dict[str, Any]) -> dict[str, Any]:
    """Return the overrides of a recipe whose epochs a client has chosen, fitted to their number.

    The last epochs of an autoencoder are its prior's, and one has to come before them.
    """
    if program != "vae":
        return overrides
    return overrides | {"prior_epochs": min(PRIOR_EPOCHS, overrides["epochs"] - 1)}


def _has(values: Any, key: str) -> bool:
    """Return whether settings have a dotted key, or a part of it that is a value."""
    for part in key.split("."):
        if not isinstance(values, dict):
            return True
        if part not in values:
            return False
        values = values[part]
    return True


def _is_setting(kind: Any, key: str) -> bool:
    first = key.split(".")[0]
    return any(each.name == first for each in fields(kind))
