"""Measure how well a diffusion model fills what a mask leaves out, with and without resampling.

    python scripts/fill_masks.py --n 300                            the shipped digits, in the default setting
    python scripts/fill_masks.py --resample 1 4 --settings ddim:8   another sampler, fewer columns

Held-out pictures lose their right half, or a square in the middle, and the model draws it again, once with
the picture's class and once without any. For each number of resampling steps:

    nfe     network evaluations per picture
    seam    mean step from pixel to pixel across the border of the mask, real pictures having 1
    FD      Frechet distance of the completed pictures to the training set, in the classifier's features
    class   share of them that the classifier takes for what the picture was
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jsonargparse import ArgumentParser
from torch import Tensor
from tqdm import tqdm

from genserve.cli import flags, help_formatter, plain_errors
from genserve.data.pictures import DataConfig, ImageSet, load_images
from genserve.drawing.local import served_model
from genserve.files import write_json
from genserve.images import normalise, to_pixels
from genserve.measure.features import features_of, read_stats
from genserve.measure.metrics import frechet_between, moments
from genserve.measure.reference import classifier_for
from genserve.places import locate
from genserve.runs.directory import load_classifier, trained_with
from genserve.sampling.engine import Evaluate
from genserve.sampling.noise import Streams
from genserve.sampling.samplers import sample
from genserve.sampling.settings import Setting


@dataclass(frozen=True, kw_only=True)
class Filling:
    """What to measure.

    Args:
        run: run directory of a diffusion model whose images have classes.
        settings: as SAMPLER:STEPS[:KEY=VALUE]...; none is the one it is served with.
        resample: numbers of resampling steps.
        n: held-out pictures, at most all.
        seed: of the noise.
        data: where the data sets are.
        dataset: the data set, if not the one the run has learnt; `folder` is the folder `data` itself.
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
        if self.precision not in ("fp32", "bf16"):
            raise ValueError(f"precision must be fp32 or bf16, got {self.precision!r}")
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


def filled(
    evaluate: Evaluate, setting: Setting, x: Tensor, y: Tensor, keep: Tensor, no_class: int, config: Filling
) -> Tensor:
    """Return the pictures x, (N, C, H, W) uint8, with what is not kept drawn again; y: (N,) int64."""
    parts = []
    for first in tqdm(range(0, len(x), config.batch_size), leave=False):
        start, part = normalise(x[first : first + config.batch_size]), y[first : first + config.batch_size]
        noise = Streams(config.seed, range(first, first + len(start)))
        sampler = setting.build(noise, start, part, no_class=no_class, start=start, keep=keep)
        parts.append(torch.from_numpy(to_pixels(sample(sampler, evaluate))).permute(0, 3, 1, 2))
    return torch.cat(parts)


def held_out(config: Filling) -> ImageSet:
    """Return the pictures to complete, evenly from the test set."""
    learnt = trained_with(config.run, "data") | {"root": str(config.data), "download": False}
    learnt |= {"name": config.dataset} if config.dataset else {}
    pictures = load_images(DataConfig(**learnt), "test")
    picked = torch.arange(min(config.n, len(pictures))) * len(pictures) // min(config.n, len(pictures))
    return ImageSet(pictures.x[picked], pictures.y[picked], pictures.classes)


def main(config: Filling) -> None:
    """Complete the pictures and compare them with real ones."""
    if config.threads:
        torch.set_num_threads(config.threads)
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    spec, evaluate = served_model(config.run, torch.device("cpu"), dtype)
    pictures = held_out(config)
    x, y = pictures.x, pictures.y
    directory = classifier_for(spec.shape, spec.classes)
    classifier, train = load_classifier(directory), read_stats(directory).train
    texts = config.settings or (Setting.of(spec.defaults).text(spec.defaults),)
    rows = []
    print(f"{'mask':6}{'class':8}{'setting':42}{'resample':>8}{'nfe':>5}{'seam':>7}{'FD':>8}{'class':>8}")
    for name, keep in masks(*spec.shape[1:]).items():
        for given in (True, False):
            for text in texts:
                for times in config.resample:
                    setting = replace(Setting.parse(text, spec.defaults), resample=times)
                    classes = y if given else torch.full_like(y, spec.no_class)
                    result = filled(evaluate, setting, x, classes, keep, spec.no_class, config)
                    features = features_of(classifier, result)
                    right = (classifier.read_out(features).argmax(1) == y).float().mean().item()
                    row = {
                        "mask": name,
                        "label": given,
                        "setting": text,
                        "resample": times,
                        "nfe": setting.nfe,
                        "seam": seam(result, keep) / seam(x, keep),
                        "frechet_distance": frechet_between(moments(features), train),
                        "class": right,
                    }
                    rows.append(row)
                    print(
                        f"{name:6}{'given' if given else 'none':8}{text:42}{times:8}{setting.nfe:5}"
                        f"{row['seam']:7.2f}{row['frechet_distance']:8.2f}{right:8.3f}",
                        flush=True,
                    )
    features = features_of(classifier, x)
    floor = frechet_between(moments(features), train)
    right = (classifier.read_out(features).argmax(1) == y).float().mean().item()
    print(f"real pictures: FD {floor:.2f}, class {right:.3f}")
    config.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(config.output, {"source": str(config.run), "n": len(x), "floor": floor, "rows": rows})


def command_line(argv: list[str]) -> Filling:
    """Return the config of these flags; dashes and underscores are alike."""
    parser = ArgumentParser(description=__doc__, formatter_class=help_formatter())
    parser.add_class_arguments(Filling, nested_key=None, skip={"settings", "resample"})
    parser.add_argument("--settings", nargs="+", default=[], help="SAMPLER:STEPS[:KEY=VALUE]...")
    parser.add_argument("--resample", nargs="+", type=int, default=[1, 2, 4, 8], help="resampling steps")
    return Filling(**vars(parser.parse_args(flags(argv))))


if __name__ == "__main__":
    with plain_errors():
        main(command_line(sys.argv[1:]))
