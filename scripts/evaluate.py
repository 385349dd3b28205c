"""Measure generated images against real ones: how far, how good, how varied, of which class, and whether copied.

    python scripts/evaluate.py                                             the shipped model, 10,000 images
    python scripts/evaluate.py --run runs/mine --settings dpmpp_2m:12 heun:18 ddim:50        one row a setting
    python scripts/evaluate.py --settings ddim:50:schedule=cosine:eta=0.5 dpmpp_2m:12:guidance=1.5
    python scripts/evaluate.py --images drawn.npy                          what a server drew, uint8 (N, H, W, C)
    python scripts/evaluate.py --images drawn/                             PNGs; in a folder a class, also their classes

A setting is SAMPLER:STEPS and then, as needed, schedule=karras, guidance=1, eta=0, sigma_min=..., sigma_max=...

The columns, all in the features of --classifier against the whole training set, 10,000 images unless --n says otherwise:

    FD           Frechet distance: 0 is the training set itself; read it against the first row, real held-out images
    precision, density     share of the generated images among real ones; how densely
    recall, coverage       share of the real images among generated ones; with a generated one close by
    class@1000, class      share whose class the classifier sees as asked for, of the first 1,000 and of all
    copy         distance to the nearest training image, root mean square in grey levels: far below the first row is copying

Images are rounded to 8 bits first, as a user gets them. Image k of a seed has its own noise and its own class, whatever
--n and --batch-size are; classes come as often as in the training set, because unequal shares would count as distance.
Without the data below --data, FD is still there (the classifier carries the moments it needs), the neighbours are not.
"""

import argparse
import pickle
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import ArgumentParser, DefaultHelpFormatter
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from genserve import data, images, metrics, run, train
from genserve.classifier import classifier_config, features_of, load_classifier, read_stats
from genserve.data import DataConfig
from genserve.diffusion import SAMPLERS, Denoiser, Query, guided, sampler_named
from genserve.diffusion import run as sample
from genserve.noise import Streams
from genserve.schedules import levels

INCEPTION = "weights-inception-2015-12-05-6726825d.pth"  # torch-fidelity's conversion of the original network
COPIES = 1000  # images whose nearest training image is looked for


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """what to measure

    Args:
        run: the run directory of a diffusion model.
        settings: SAMPLER:STEPS[:KEY=VALUE]..., one row of the table each.
        n: images a setting.
        seed: of the noise.
        unconditional: ask for no class; class accuracy is then left out.
        images: measure these instead of drawing: a .npy file or a folder.
        classifier: the run directory of the classifier whose features are compared.
        data: where its data set is.
        inception_weights: also compute the FID of the literature, with this file of torch-fidelity
            (weights-inception-2015-12-05-6726825d.pth from its releases); hours on a CPU.
        precision: of the network that draws, fp32 or bf16; fp32 is what a server's numbers should be compared with.
        batch_size: images drawn together.
        device: auto, cpu or cuda.
        threads: CPU threads; 0 is torch's own choice.
        output: JSON file of the table; pictures of samples and of their nearest training images go beside it.
    """

    run: Path = Path("weights/diffusion-mnist")
    settings: tuple[str, ...] = ("dpmpp_2m:18",)
    n: int = 10_000
    seed: int = 0
    unconditional: bool = False
    images: Path | None = None
    classifier: Path = Path("weights/classifier-mnist")
    data: Path = Path("data")
    inception_weights: Path | None = None
    precision: str = "fp32"
    batch_size: int = 250
    device: str = "auto"
    threads: int = 0
    output: Path = Path("out/evaluation.json")

    def __post_init__(self) -> None:
        for name, allowed in (("precision", ("bf16", "fp32")), ("device", ("auto", "cpu", "cuda"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if self.n <= metrics.K or self.batch_size < 1:
            raise ValueError(f"need n above {metrics.K} and batch_size above 0, got {self.n}, {self.batch_size}")
        if self.inception_weights is not None and not self.inception_weights.is_file():
            raise FileNotFoundError(f"--inception-weights: there is no file {self.inception_weights}")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How images are drawn."""

    sampler: str
    steps: int
    schedule: str = "karras"
    guidance: float = 1.0
    eta: float = 0.0
    sigma_min: float
    sigma_max: float

    @property
    def sigmas(self) -> Tensor:
        return levels(self.schedule, self.steps, self.sigma_min, self.sigma_max)


def parse(text: str, model: run.ModelConfig) -> Setting:
    """Return the setting that SAMPLER:STEPS[:KEY=VALUE]... names.

    Raises:
        ValueError: it names none.
    """
    sampler, _, rest = text.partition(":")
    steps, *pairs = rest.split(":")
    named = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    allowed = {"schedule": str, "guidance": float, "eta": float, "sigma_min": float, "sigma_max": float}
    if sampler not in SAMPLERS or not steps.isdecimal() or len(named) < len(pairs) or named.keys() - allowed:
        raise ValueError(
            f"a setting is SAMPLER:STEPS[:KEY=VALUE]..., SAMPLER one of {', '.join(SAMPLERS)}, KEY one of "
            f"{', '.join(allowed)}; got {text!r}"
        )
    given: dict[str, Any] = {key: allowed[key](value) for key, value in named.items()}
    limits = {"sigma_min": model.sigma_min, "sigma_max": model.sigma_max}
    setting = Setting(**limits | given | {"sampler": sampler, "steps": int(steps)})
    if setting.eta and sampler != "ddim":
        raise ValueError(f"eta is ddim's alone, got {text!r}")
    if setting.guidance != 1 and not model.classes:
        raise ValueError(f"guidance needs a model with classes, got {text!r}")
    setting.sigmas  # refuses a schedule that does not exist or has fewer steps
    return setting


# ---- images --------------------------------------------------------------------------------------------------------


def labels(n: int, class_counts: Tensor) -> Tensor:
    """Return classes in the proportion of class_counts, (n,), image k's whatever n is.

    Every stretch of the multiples of the golden ratio, modulo 1, is spread evenly; so every n has its fair shares.
    """
    u = torch.arange(1, n + 1, dtype=torch.float64) * ((5**0.5 - 1) / 2) % 1
    return torch.searchsorted(class_counts.double().cumsum(0) / class_counts.sum(), u, right=True)


def draw(config: Evaluation, setting: Setting, model: run.ModelConfig, y: Tensor) -> tuple[Tensor, float]:
    """Return images (N, C, H, W) uint8 of classes y, (N,), and how many network evaluations each one took."""
    device = train.join_ranks(config.device).device
    denoiser = run.load_denoiser(config.run).to(device, memory_format=torch.channels_last)
    autocast = train.precision_of(config.precision, device)
    asked = 0

    def counted(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        nonlocal asked
        asked += len(x)
        with autocast():
            return denoiser(x, sigma, y)

    parts = []
    bar = tqdm(total=len(y), desc=f"{setting.sampler} {setting.steps}", unit="image", dynamic_ncols=True)
    for start in range(0, len(y), config.batch_size):
        y_part = y[start : start + config.batch_size].to(device)
        noise = Streams(config.seed, range(start, start + len(y_part)))
        x_t = setting.sigmas[0].item() * noise(torch.empty(len(y_part), *model.shape, device=device))
        sampler = sampler_named(setting.sampler, x_t, setting.sigmas, y_part, eta=setting.eta, noise=noise)
        if setting.guidance != 1:
            sampler = guided(sampler, setting.guidance, len(model.classes))
        parts.append(torch.from_numpy(images.to_pixels(sample(sampler, counted))).permute(0, 3, 1, 2))
        bar.update(len(y_part))
    bar.close()
    return torch.cat(parts), asked / len(y)


def read(path: Path, shape: tuple[int, int, int], classes: tuple[str, ...]) -> tuple[Tensor, Tensor | None]:
    """Return images (N, C, H, W) uint8 from a .npy file or a folder, and their classes where its folders name them.

    Raises:
        FileNotFoundError: there is neither.
        ValueError: they are not images of this shape.
    """
    c, h, w = shape
    if path.is_dir():
        for file in (f for f in path.rglob("*") if f.suffix.lower() in data.SUFFIXES):
            with Image.open(file) as picture:
                if picture.size != (w, h):
                    raise ValueError(f"{file} has {picture.width} x {picture.height} pixels, not {w} x {h}")
        found = data.load(DataConfig(name="folder", root=str(path), channels=c), "train")
        if not found.classes or not set(found.classes) <= set(classes):
            return found.x, None
        return found.x, torch.tensor([classes.index(name) for name in found.classes])[found.y]
    if not path.is_file():
        raise FileNotFoundError(f"--images: there is no file or folder {path}")
    try:
        pixels = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is no .npy file of images") from error
    if pixels.dtype != np.uint8 or pixels.shape[1:] not in ((h, w), (h, w, c))[c > 1 :]:
        raise ValueError(f"{path} must hold uint8 (N, {h}, {w}, {c}), it holds {pixels.dtype} {pixels.shape}")
    return torch.from_numpy(pixels).reshape(-1, h, w, c).permute(0, 3, 1, 2), None


# ---- measures ------------------------------------------------------------------------------------------------------


def inception_moments(x: Tensor, weights: Path, device: torch.device, name: str) -> metrics.Moments:
    """Return the moments of the Inception features of images (N, C, H, W) uint8."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    try:
        torch.load(weights, map_location="cpu", weights_only=True)  # torch-fidelity itself would run what a pickle says
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(weights)).to(device)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{weights} does not hold the weights of {INCEPTION}") from error
    with torch.no_grad():
        parts = tqdm(x.expand(-1, 3, -1, -1).split(50), desc=f"Inception, {name}", dynamic_ncols=True)
        return metrics.moments(torch.cat([network(part.to(device))[0].cpu() for part in parts]))


def bar(what: str) -> metrics.Chunks:
    """Return what shows a progress bar over its argument."""
    return partial(tqdm, desc=what, leave=False, dynamic_ncols=True)


def write_pictures(stem: str, x: Tensor, y: Tensor | None, reference: Reference) -> None:
    """Write STEM-samples.png, a column a class, and STEM-neighbours.png, pairs of an image and its nearest in training."""
    if y is None:
        first = x[:80]
    else:
        columns = [x[y == k][:8] for k in range(min(10, len(reference.classes)))]
        rows = min(len(column) for column in columns)
        first = torch.stack([column[:rows] for column in columns], dim=1).flatten(0, 1)

    def save(name: str, pictures: Tensor, columns: int) -> None:
        pixels = pictures.permute(0, 2, 3, 1).numpy()
        run.write_atomic(Path(f"{stem}-{name}.png"), images.png(images.enlarge(images.grid(pixels, columns), 2)))

    if len(first):
        save("samples", first, min(10, len(reference.classes)) or 10)
    if reference.train is not None:
        _, real = reference.nearest(x[:40])
        save("neighbours", torch.cat([x[:40], real], dim=3), 5)


COLUMNS = {
    "name": ("setting", "{}"),
    "n": ("n", "{}"),
    "nfe": ("nfe", "{:.0f}"),
    "frechet_distance": ("FD", "{:.3f}"),
    "inception_fid": ("FID", "{:.2f}"),
    "precision": ("precision", "{:.3f}"),
    "density": ("density", "{:.3f}"),
    "recall": ("recall", "{:.3f}"),
    "coverage": ("coverage", "{:.3f}"),
    "class_1000": ("class@1000", "{:.3f}"),
    "class": ("class", "{:.4f}"),
    "copy_distance": ("copy", "{:.1f}"),
    "images_per_s": ("images/s", "{:.0f}"),
}


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as aligned text; columns that no row fills are left out."""
    keys = [key for key in COLUMNS if any(key in row for row in rows)]
    cells = [[COLUMNS[key][0] for key in keys]]
    cells += [[COLUMNS[key][1].format(row[key]) if key in row else "-" for key in keys] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(keys))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in cells
    )


def main(config: Evaluation) -> None:
    """Draw or read the images, measure them and say so."""
    if config.threads:
        torch.set_num_threads(config.threads)
    device = train.join_ranks(config.device).device
    reference = Reference(config.classifier, config.data, device, bar)
    notes = []
    if reference.train is None:
        notes.append(
            f"{reference.name} is not below {config.data} (--data): FD is measured against the moments that the "
            "classifier carries; precision, recall, density, coverage and copies need the training images."
        )
    if config.inception_weights is None:
        notes.append(f"The Inception-FID was not computed: --inception-weights wants {INCEPTION} (torch-fidelity).")
    elif reference.train is None:
        raise FileNotFoundError(f"the Inception-FID needs the training images, and {notes[0]}")
    config.output.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []

    def add(name: str, x: Tensor, y: Tensor | None, **known: Any) -> None:
        rows.append({"name": name} | known | reference.measure(x, y))
        stem = str(config.output.with_suffix("")) + "-" + name.replace(":", "-").replace("=", "")
        write_pictures(stem, x, y, reference)
        if inception_train is not None:
            moments = inception_moments(x, config.inception_weights, device, name)
            rows[-1]["inception_fid"] = metrics.frechet_between(moments, inception_train)
