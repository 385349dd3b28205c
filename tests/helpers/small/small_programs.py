"""The training programs on pictures of 8 x 8 pixels, run in this process."""

import runpy
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from genserve.data.pictures import DataConfig

ROOT = Path(__file__).parents[3]
NET = {"patch": 1, "channels": (8, 16), "attention": (), "heads": 1, "blocks": 1}
COMMON = {"batch_size": 4, "epochs": 1, "warmup": 1, "precision": "fp32", "device": "cpu"}
SETTINGS: dict[str, dict[str, Any]] = {
    "train_diffusion": {"net": NET},
    "train_energy": {"net": NET},
    "distill_diffusion": {"few": (20.0, 1.0), "probe_every": 1},
    "train_classifier": {"net": {"patch": 1, "channels": (8,), "n_features": 4}},
    "train_gan": {"net": {"z_dim": 4, "channels": (8, 4)}, "critic": {"channels": (4, 8), "group": 4}},
    "train_vae": {
        "net": {"z_dim": 4, "channels": (4, 8), "hidden": 8, "couplings": 2, "coupling_hidden": 8},
        "prior_epochs": 0,
    },
}
PROGRAMS = {name: runpy.run_path(str(ROOT / f"training/{name}.py")) for name in SETTINGS}


def config_of(name: str, output: Path, pictures: Path | str, **more: Any) -> Any:
    """Return the configuration of a program that learns from a folder of pictures."""
    kind = PROGRAMS[name]["TrainConfig"]
    settings = COMMON | SETTINGS[name] | {"name": name, "output": str(output)} | more
    parts = {field.name: field.default_factory for field in fields(kind)}
    settings |= {key: parts[key](**value) for key, value in settings.items() if isinstance(value, dict)}
    return kind(data=DataConfig(name="folder", root=str(pictures)), **settings)


def fit(name: str, output: Path, pictures: Path | str, **more: Any) -> Path:
    """Run a program in this process; return its run directory."""
    PROGRAMS[name]["main"](config_of(name, output, pictures, **more))
    return output / name


def draw_pictures(folder: Path, n: int, low: int, high: int, seed: int = 0) -> None:
    """Write n pictures of 8 x 8 pixels between two grays."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, low])
    for k in range(n):
        pixels = rng.integers(low, high, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{low:03}-{seed}-{k}.png")
