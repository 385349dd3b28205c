"""Small untrained classifiers, exported as an archive has them, and pictures of any size."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from genserve.files import write_json
from genserve.models.labels import LabelsConfig
from genserve.runs.directory import FORMAT
from genserve.runs.export import export
from genserve.runs.tensors import write_weights

CLASSES = ("ant", "bee", "cat", "dog", "eel", "fox")


def exported(
    folder: Path, *, mirror: bool = True, classes: tuple[str, ...] = CLASSES, **serving: Any
) -> Path:
    """Write a run of colour pictures of 16 x 16 and export it; return the exported files, inside the run.

    Args:
        serving: what its serving.json says.
    """
    run = folder / "labels"
    run.mkdir()
    model: dict[str, Any] = {"family": "labels", "shape": (3, 16, 16), "channels": (8, 12)}
    model |= {"mirror": mirror, "classes": classes}
    write_json(run / "config.json", {"format": FORMAT, "model": model})
    if serving:
        write_json(run / "serving.json", serving)
    torch.manual_seed(0)
    network = LabelsConfig(**model).build()
    weights = network.state_dict()
    weights["read_out.weight"] *= 30  # an untrained one is sure of nothing
    write_weights(run / "weights.safetensors", weights)
    export(run, run / "exported")
    return run / "exported"


def pixels(seed: int, width: int = 16, height: int = 16, channels: int = 3) -> np.ndarray[Any, Any]:
    """Return a picture of blobs, (height, width, channels) uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, channels), dtype=np.uint8)
    picture = Image.fromarray(coarse[..., 0] if channels == 1 else coarse)
    resized = picture.resize((width, height), Image.Resampling.BICUBIC)
    return np.array(resized).reshape(height, width, channels)


def sent(array: np.ndarray[Any, Any], form: str = "PNG") -> str:
    """Return a picture as a request has it: a file in base64."""
    buffer = io.BytesIO()
    Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(buffer, form)
    return base64.b64encode(buffer.getvalue()).decode()
