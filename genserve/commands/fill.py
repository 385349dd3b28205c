"""Measure how well a diffusion model fills what a mask leaves out, with and without resampling.

    genserve fill --n 300                            the shipped digits, in the default setting
    genserve fill --resample 1 4 --settings ddim:8   another sampler, fewer rows

Held-out pictures lose their right half, or a square in the middle, and the model draws it again, once with
the picture's class and once without any. For each number of resampling steps:

    nfe     network evaluations per picture
    seam    mean step from pixel to pixel across the border of the mask, real pictures having 1
    FD      Frechet distance of the completed pictures to the training set, in the classifier's features
    class   share of them that the classifier takes for what the picture was
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from genserve.cli import config_of, plain_errors
from genserve.data.pictures import DataConfig, ImageSet, load_images
from genserve.drawing.local import served_model
from genserve.files import write_json
from genserve.images import normalise, to_pixels
from genserve.measure.features import features_of, read_stats
from genserve.measure.metrics import frechet_between, moments
from genserve.measure.reference import classifier_for
from genserve.places import locate
from genserve.precision import PRECISIONS
from genserve.runs.directory import load_classifier, trained_with
from genserve.sampling.noise import Streams
from genserve.sampling.samplers import sample
from genserve.sampling.settings import Setting


@dataclass(frozen=True, kw_only=True)
class Filling:
    """What to measure.

    Args:
        run: run directory of a diffusion model whose images have classes.
        settings: as SAMPLER:STEPS[:KEY=VALUE]...; if there are none, the one it is served with.
        resample: numbers of resampling steps.
        n: held-out pictures, at most all.
        seed: of the noise.
        data: where the data sets are.
        dataset: the data set, if not the one that the run has learnt; `folder` is the folder `data` itself.
        precision: fp32 or bf16.
        batch_size: pictures drawn together.
        threads: CPU threads; 0 is torch's own choice.
        output: JSON file of the table.
    """

    run: Path = Path("weights/diffusion-mnist")
    settings: tuple[str, ...] = ()
    resample: tuple[int, ...] = (1, 2, 4, 8)
    n: int = 300
    seed: int = 0
    data: Path = Path("data")
    dataset: str | None = None
    precision: str = "fp32"
    batch_size: int = 100
    threads: int = 0
    output: Path = Path("out/filling.json")

    def __post_init__(self) -> None:
        if self.n < 2 or self.batch_size < 1:
            raise ValueError(f"n must be at least 2 and batch_size 1, got {self.n} and {self.batch_size}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be {' or '.join(PRECISIONS)}, got {self.precision!r}")
        locate(self, "run", "data")


def masks(height: int, width: int) -> dict[str, Tensor]:
    """Return which pixels stay, (1, H, W) bool each: the left half; all but a square in the middle."""
    half = torch.zeros(1, height, width, dtype=torch.bool)
    half[..., : width // 2] = True
    hole = torch.ones(1, height, width, dtype=torch.bool)
    hole[..., height // 4 : -(height // 4), width // 4 : -(width // 4)] = False
    return {"half": half, "hole": hole}


def seam(x: Tensor, keep: Tensor) -> float:
    """Return the mean difference of neighbours on both sides of a mask's border.

    Args:
        x: (N, C, H, W) uint8;  keep: (1, H, W) bool.
    """
    pixels, sides = x.float(), keep[0]
    across = (pixels.diff(dim=3).abs() * (sides[:, 1:] != sides[:, :-1])).sum()
    down = (pixels.diff(dim=2).abs() * (sides[1:] != sides[:-1])).sum()
    borders = (sides[:, 1:] != sides[:, :-1]).sum() + (sides[1:] != sides[:-1]).sum()
    return ((across + down) / (borders * x.shape[0] * x.shape[1])).item()


def held_out(config: Filling) -> ImageSet:
    """Return the pictures to complete, evenly from the test set."""
    learnt = trained_with(config.run, "data") | {"root": str(config.data), "download": False}
    learnt |= {"name": config.dataset} if config.dataset else {}
    pictures = load_images(DataConfig(**learnt), "test")
    n = min(config.n, len(pictures))
    picked = torch.arange(n) * len(pictures) // n
    return ImageSet(pictures.x[picked], pictures.y[picked], pictures.classes)


class Completion:
    """Completes pictures and compares them with real ones.

    Raises:
        FileNotFoundError, ValueError: as `served_model`, `load_images` and `classifier_for`.
    """

    def __init__(self, config: Filling) -> None:
        self.config, self.pictures = config, held_out(config)
        device = torch.device("cpu")
        self.spec, self.evaluate = served_model(config.run, device, config.precision)
        directory = classifier_for(self.spec.shape, self.spec.classes)
        self.classifier, self.train = load_classifier(directory), read_stats(directory).train

    def filled(self, setting: Setting, y: Tensor, keep: Tensor) -> Tensor:
        """Return the pictures with what is not kept drawn again, (N, C, H, W) uint8."""
        x, size, parts = self.pictures.x, self.config.batch_size, []
        for first in tqdm(range(0, len(x), size), leave=False):
            start = normalise(x[first : first + size])
            noise = Streams(self.config.seed, range(first, first + len(start)))
            classes = y[first : first + size]
            no_class = self.spec.no_class
            sampler = setting.build(noise, start, classes, no_class=no_class, start=start, keep=keep)
            pixels = torch.from_numpy(to_pixels(sample(sampler, self.evaluate)))
            parts.append(pixels.permute(0, 3, 1, 2))
        return torch.cat(parts)

    def compared(self, x: Tensor) -> dict[str, float]:
        """Return the Frechet distance of pictures to the training set, and how many keep their class."""
        features = features_of(self.classifier, x)
        right = self.classifier.read_out(features).argmax(1) == self.pictures.y
        return {
            "frechet_distance": frechet_between(moments(features), self.train),
            "class": right.float().mean().item(),
        }

    def row(self, text: str, times: int, name: str, keep: Tensor, label: bool) -> dict[str, Any]:
        """Return a row of the table."""
        setting = replace(Setting.parse(text, self.spec.defaults), resample=times)
        x, y = self.pictures.x, self.pictures.y
        result = self.filled(setting, y if label else torch.full_like(y, self.spec.no_class), keep)
        facts = {"mask": name, "label": label, "setting": text, "resample": times, "nfe": setting.nfe}
        return facts | {"seam": seam(result, keep) / seam(x, keep)} | self.compared(result)


def main(config: Filling) -> None:
    """Measure every mask with and without the class, in every setting, and write the table."""
    if config.threads:
        torch.set_num_threads(config.threads)
    completion = Completion(config)
    defaults = completion.spec.defaults
    texts = config.settings or (Setting.of(defaults).text(defaults),)
    print(f"{'mask':6}{'label':7}{'setting':34}{'resample':>8}{'nfe':>5}{'seam':>7}{'FD':>8}{'class':>8}")
    rows = []
    for name, keep in masks(*completion.spec.shape[1:]).items():
        for label in (True, False):
            for text in texts:
                for times in config.resample:
                    row = completion.row(text, times, name, keep, label)
                    rows.append(row)
                    line = f"{name:6}{'given' if label else 'none':7}{text:34}{times:8}{row['nfe']:5}"
                    numbers = f"{row['seam']:7.2f}{row['frechet_distance']:8.2f}{row['class']:8.3f}"
                    print(line + numbers, flush=True)
    real = completion.compared(completion.pictures.x)
    print(f"real pictures: FD {real['frechet_distance']:.2f}, class {real['class']:.3f}")
    config.output.parent.mkdir(parents=True, exist_ok=True)
    record = {"source": str(config.run), "n": len(completion.pictures), "real": real, "rows": rows}
    write_json(config.output, record)


def command_line(argv: list[str]) -> Filling:
    """Return what the flags ask for; dashes and underscores are alike."""
    lists = {
        "settings": (str, "SAMPLER:STEPS[:KEY=VALUE]... (default: as it is served)"),
        "resample": (int, "numbers of resampling steps (default: 1 2 4 8)"),
    }
    return config_of(Filling, __doc__, argv, lists=lists)


def run(argv: list[str]) -> None:
    """Do what the flags ask for; a mistake ends the program in one line."""
    with plain_errors():
        main(command_line(argv))
