"""Describe a training run by its model, settings, data and inputs, and compare two descriptions."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from genserve.data.pictures import ImageSet, mean_and_std
from genserve.runs.directory import read_config

# The settings that may change when a run goes on: its length, how often it writes, and the places of files,
# but nothing that changes what is learnt. So max_batches_per_epoch is not among them: it decides which images
# make a step.
FREE = {
    "name",
    "output",
    "data.root",
    "data.download",
    "epochs",
    "sample_every",
    "checkpoint_every",
    "tensorboard",
    "threads",
    "device",
    "compile",
}
NAMES_SHOWN = 20  # of classes, in an error


def described(data: ImageSet | str) -> dict[str, Any]:
    """Return the entry of a data set in config.json.

    Of images: number, classes, mean and std of all pixels in [-1, 1], and a SHA-256 that covers shape, pixels
    and labels as the network sees them: (N, C, H, W) uint8 after cropping and resizing, and (N,) int64. Of a
    text: the number of its characters, and the SHA-256 of its UTF-8.
    """
    if isinstance(data, str):
        return {"characters": len(data), "sha256": hashlib.sha256(data.encode()).hexdigest()}
    images = data
    mean, std = mean_and_std(images)
    total = hashlib.sha256(str(tuple(images.x.shape)).encode())
    for tensor in (images.x, images.y):
        total.update(tensor.reshape(-1).numpy().data)
    return {
        "images": len(images),
        "classes": list(images.classes),
        "mean": round(mean, 6),
        "std": round(std, 6),
        "sha256": total.hexdigest(),
    }


def as_stored(value: Any) -> Any:
    """Return a value as it comes back from JSON: tuples are lists."""
    return json.loads(json.dumps(value))


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings with dotted keys: {"net": {"patch": 1}} is {"net.patch": 1}."""
    result: dict[str, Any] = {}
    for key, value in settings.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return result


def changes(before: Mapping[str, Any], now: Mapping[str, Any], usual: Mapping[str, Any]) -> list[str]:
    """Return the differences that make `now` another run, a few words each; an empty list for the same run.

    Args:
        before: config.json of the run. What an older version did not record is not compared.
        now: config.json of the run that is to start.
        usual: defaults of the settings, with dotted keys: these hold for runs from before a setting existed.
    """
    inputs = before["inputs"].keys() | now["inputs"].keys() if "inputs" in before else set()
    result: dict[str, str] = {}
    for part in ("model", "train"):
        past, present = flat(before.get(part, {})), flat(now[part])
        for key in sorted(past | present):
            was, value = past.get(key, usual.get(key, present.get(key))), present.get(key)
            if was != value and not (part == "train" and key in FREE | inputs):
                result.setdefault(key, _change(key, was, value))
    for part, title in (("data", "data"), ("held_out", "held-out data")):
        if part in before:
            result |= _other_data(before[part], now[part], title, result)
    for key in sorted(inputs):
        was, value = (config["inputs"].get(key) for config in (before, now))
        if was and value and was != value:
            result[key] = f"{key} has other contents"
        elif was != value:
            result[key] = _change(key, before["train"].get(key), now["train"].get(key))
    return list(result.values())


def _other_data(
    was: Mapping[str, Any], now: Mapping[str, Any], title: str, known: Mapping[str, str]
) -> dict[str, str]:
    """Return the differences between two descriptions of data; of classes, only if not known already."""
    if was.get("characters") != now.get("characters"):
        number = (f"{each.get('characters', 0)} characters" for each in (was, now))
        return {title: f"{title} had {next(number)}, have {next(number)}"}
    if "characters" in now:
        return {} if was["sha256"] == now["sha256"] else {title: f"{title} have other characters"}
    result = {}
    if was["images"] != now["images"]:
        result[f"{title} images"] = f"{title} had {was['images']} images, have {now['images']}"
    for key in ("classes", "mean", "std"):
        if was[key] != now[key] and key not in known:
            result[f"{title} {key}"] = _change(key, was[key], now[key])
    if was["sha256"] != now["sha256"] and not result:
        result[f"{title} sha256"] = f"{title} have other pictures or labels"
    return result


def _change(key: str, was: Any, now: Any) -> str:
    if key == "classes":
        return f"classes were {_names(was)}, are {_names(now)}"
    return f"{key} was {was!r}, is {now!r}"


def _names(classes: list[str]) -> str:
    more = len(classes) - NAMES_SHOWN
    return (", ".join(classes[:NAMES_SHOWN]) or "none") + (f" and {more} more" if more > 0 else "")


def require_same(role: str, directory: Path, model: Any, names: tuple[str, ...]) -> None:
    """Refuse a run whose model differs from this one's in one of these parts of config.json.

    Args:
        role: what the other run is used for; the error begins with it.
        model: the configuration of this run's model.

    Raises:
        ValueError: a part differs.
        FileNotFoundError, OSError: as `runs.directory.read_config`.
    """
    other, own = read_config(directory)["model"], as_stored(asdict(model))
    for name in names:
        before, now = other.get(name) or None, own.get(name) or None
        if isinstance(before, dict) and isinstance(now, dict):  # older runs lack settings that have a default
            now = {key: value for key, value in now.items() if key in before}
        if before != now:
            raise ValueError(f"{role} {directory} has {name} {before}, this run {now}")
