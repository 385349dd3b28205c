"""Measure generated images against real ones: how far, how good, how varied, of which class, whether copied.

    python scripts/evaluate.py                              the shipped model as it is served, 10,000 images
    python scripts/evaluate.py --run runs/mine --settings dpmpp_2m:12 heun:18 ddim:50
    python scripts/evaluate.py --settings ddim:50:schedule=cosine:eta=0.5 dpmpp_2m:12:guidance=1.5
    python scripts/evaluate.py --images drawn.npy           what a server drew, uint8 (N, H, W, C)
    python scripts/evaluate.py --images drawn/              PNGs, with a folder a class or without

A setting is SAMPLER:STEPS[:KEY=VALUE]..., SAMPLER one of ddim, ddpm, heun, dpmpp_2m, KEY one of schedule,
guidance, eta (of ddim), sigma_min, sigma_max. An energy also takes SAMPLER langevin, KEY step_size or noise
of it, and no guidance. Without any setting: as the run is served.

The columns, in the features of --classifier, against the whole training set:

    FD                   Frechet distance, 0 is best; means nothing but beside that of held-out images, the
                         first row; the second row's classes come as often as in training, like those drawn
    precision, density   share of the images that lie among real ones; how densely
    recall, coverage     share of the real images that lie among these; that have one of these close by
    class@1000, class    share whose class the classifier sees as asked, of the first 1,000 and of all
    copy                 distance to the nearest training image, root mean square in gray levels of 255,
                         over the first 1,000: copies would be far below held-out images

Images are rounded to 8 bits first, as a user gets them. Image k of a seed has noise and a class of its own,
whatever --n and --batch-size are. Classes come as often as in the training set: other shares would count as
distance. Without the training images below --data, FD is still there, from moments the classifier carries.
"""

import pickle
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import ArgumentParser
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from genserve import data, images, metrics, run, train
from genserve.data import DataConfig
from genserve.draw import draw, fair_classes, setting
from genserve.export import serving_of, walk_of
from genserve.forward import PRECISIONS
from genserve.reference import Reference
from genserve.train import help_formatter

INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
RELEASES = "github.com/toshas/torch-fidelity/releases"

Row = tuple[str, Tensor, Tensor | None, dict[str, Any]]  # name, images, their classes, what is known already


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """what to measure

    Args:
        run: run directory of a diffusion model or of an energy.
        settings: SAMPLER:STEPS[:KEY=VALUE]..., as above; a row of the table each.
        n: images a setting. Few images look worse than they are: 10,000 is what numbers are quoted with.
        seed: of the noise.
        unconditional: ask for no class; the class columns are then left out.
        images: measure these instead of drawing: a .npy file or a folder.
        classifier: run directory of the classifier whose features are compared.
        data: where its data set is.
        inception_weights: with this file, weights-inception-2015-12-05-6726825d.pth of torch-fidelity, also
            compute the FID of the literature; hours on a CPU.
        precision: of the network that draws, fp32 or bf16.
        batch_size: images drawn together.
        device: auto, cpu or cuda.
        threads: CPU threads; 0 is torch's own choice.
        output: JSON file of the table; pictures of samples and of what is nearest to them go beside it.
    """

    run: Path = Path("weights/diffusion-mnist")
    settings: tuple[str, ...] = ()
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
        for name, allowed in (("precision", tuple(PRECISIONS)), ("device", ("auto", "cpu", "cuda"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if self.n <= metrics.K or self.batch_size < 1:
            got = f"got {self.n} and {self.batch_size}"
            raise ValueError(f"n must be above {metrics.K} and batch_size above 0, {got}")
        if self.inception_weights is not None and not self.inception_weights.is_file():
            raise FileNotFoundError(
                f"--inception-weights: there is no file {self.inception_weights}; wanted is {INCEPTION} "
                f"from {RELEASES}"
            )


def read(path: Path, shape: Sequence[int], classes: Sequence[str]) -> tuple[Tensor, Tensor | None]:
    """Return images (N, C, H, W) uint8 of a file or folder, and their classes where its folders name them.

    Raises:
        FileNotFoundError: there is neither.
        ValueError: they are not images of this shape.
    """
    c, h, w = shape
    if path.is_dir():
        for file in sorted(f for f in path.rglob("*") if f.suffix.lower() in data.SUFFIXES):
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
    if pixels.dtype != np.uint8 or pixels.shape[1:] not in ((h, w, c), (h, w) if c == 1 else ()):
        raise ValueError(f"{path} must hold uint8 (N, {h}, {w}, {c}), it holds {pixels.dtype} {pixels.shape}")
    return torch.from_numpy(pixels).reshape(-1, h, w, c).permute(0, 3, 1, 2), None


class Inception:
    """The network of the literature's FID, through torch-fidelity, from a file that is here already."""

    def __init__(self, weights: Path, device: torch.device, real: Tensor) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        try:
            torch.load(weights, map_location="cpu", weights_only=True)  # torch-fidelity runs a pickle's code
            network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(weights))
        except (RuntimeError, TypeError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(f"{weights} is not {INCEPTION}: it holds something else") from error
        self.network, self.device, self._real = network.to(device), device, real

    @cached_property
    def real(self) -> metrics.Moments:
        """Of the training images."""
        return self.moments(self._real, "training images")

    @torch.no_grad()
    def moments(self, x: Tensor, what: str) -> metrics.Moments:
        """Return the moments of the features of images (N, C, H, W) uint8."""
        parts = bar(f"{what}, Inception")(x.expand(-1, 3, -1, -1).split(50))
        return metrics.moments(torch.cat([self.network(part.to(self.device))[0].cpu() for part in parts]))


def bar(what: str) -> Any:
    """Return what shows a progress bar over its argument."""
    return partial(tqdm, desc=what, leave=False, dynamic_ncols=True)


def write_pictures(stem: Path, x: Tensor, y: Tensor | None, reference: Reference) -> None:
    """Write STEM-samples.png, a column a class, and STEM-neighbours.png, each image left of its nearest."""

    def save(name: str, pictures: Tensor, columns: int) -> None:
        sheet = images.grid(pictures.permute(0, 2, 3, 1).numpy(), columns)
        run.write_atomic(Path(f"{stem}-{name}.png"), images.png(images.enlarge(sheet, 2)))

    by_class = [x[y == k][:8] for k in range(10)] if y is not None else []
    rows = min(map(len, by_class), default=0)
    save("samples", torch.stack([k[:rows] for k in by_class], dim=1).flatten(0, 1) if rows else x[:80], 10)
    if reference.train is not None:
        save("neighbours", torch.cat([x[:40], reference.nearest(x[:40])[1]], dim=3), 5)


COLUMNS = {
    "name": ("", "{}"),
    "n": ("n", "{}"),
    "nfe": ("nfe", "{}"),
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
    """Return the rows as aligned text; a column that no row fills is left out."""
    keys = [key for key in COLUMNS if any(key in row for row in rows)]
    lines = [[COLUMNS[key][0] for key in keys]]
    lines += [[COLUMNS[key][1].format(row[key]) if key in row else "-" for key in keys] for row in rows]
    name, *widths = (max(len(line[i]) for line in lines) for i in range(len(keys)))
    return "\n".join(
        "  ".join([line[0].ljust(name), *(cell.rjust(w) for cell, w in zip(line[1:], widths, strict=True))])
        for line in lines
    )


def given(config: Evaluation, reference: Reference) -> Iterator[Row]:
    """Yield the images of a file or folder."""
    assert config.images is not None
    x, y = read(config.images, reference.shape, reference.classes)
    yield config.images.name, x, y, {}


def served(directory: Path) -> str:
    """Return the setting with which a run is served."""
    how = serving_of(directory)
    return f"{how['sampler']}:{how['steps']}" + (f":eta={how['eta']:g}" if how.get("eta") else "")


def drawn(config: Evaluation, reference: Reference, device: torch.device) -> Iterator[Row]:
    """Yield the images of each setting."""
    model = run.model_config(config.run)
    if model.shape != reference.shape or model.classes not in ((), reference.classes):
        raise ValueError(f"{config.run} draws other images than {config.classifier} knows")
    texts = config.settings or (served(config.run),)
    walk = walk_of(config.run) if model.family == "energy" else None
    settings = [setting(text, model, walk) for text in texts]  # all, before the first takes its minutes
    drawer = run.load_model(config.run).to(device, memory_format=torch.channels_last)
    drawer = drawer.to(PRECISIONS[config.precision])
    fair = fair_classes(config.n, reference.stats.class_counts)
    unconditional = config.unconditional or not model.classes
    y = torch.full_like(fair, len(model.classes)) if unconditional else fair
    for text, how in zip(texts, settings, strict=True):
        clock = time.perf_counter()
        x = draw(drawer, model, how, y, config.seed, config.batch_size, bar(text))
        speed = config.n / (time.perf_counter() - clock)
        yield text, x, None if unconditional else y, {"nfe": how.nfe, "images_per_s": round(speed, 1)}


def main(config: Evaluation) -> None:
    """Draw or read the images, measure them and say so."""
    if config.threads:
        torch.set_num_threads(config.threads)
    device = train.join_ranks(config.device).device
    reference = Reference(config.classifier, config.data, device, bar)
    config.output.parent.mkdir(parents=True, exist_ok=True)
    notes = []
    if reference.train is None:
        notes.append(
            f"{reference.name} is not below {config.data} (--data): FD is against the moments the classifier "
            "holds; precision, density, recall, coverage, copy and FID need the training images"
        )
    inception = None
    if config.inception_weights is None or reference.train is None:
        notes.append(f"Inception-FID was not computed: --inception-weights needs {INCEPTION} from {RELEASES}")
    else:
        inception = Inception(config.inception_weights, device, reference.train.x)

    def measured(name: str, x: Tensor, y: Tensor | None, known: dict[str, Any]) -> dict[str, Any]:
        row = {"name": name} | known | reference.measure(x, y)
        if inception is not None:
            row["inception_fid"] = metrics.frechet_between(inception.moments(x, name), inception.real)
        return row

    rows = []
    sources = given(config, reference) if config.images else drawn(config, reference, device)
    for name, x, y, known in sources:
        rows.append(measured(name, x, y, known))
        stem = f"{config.output.stem}-{name.replace(':', '-').replace('=', '-')}"
        write_pictures(config.output.with_name(stem), x, y, reference)
    held_out = reference.held_out(max(row["n"] for row in rows))
    floor = [measured(name, x, y, {}) for name, (x, y) in held_out.items()]
    rows = (floor or [{"name": "held-out images"} | reference.floor()]) + rows
    result = {
        "source": str(config.images or config.run),
        "classifier": str(config.classifier),
        "seed": config.seed,
        "unconditional": config.unconditional,
        "precision": config.precision,
        "rows": rows,
        "notes": notes,
    }
    run.write_json(config.output, result)
    print(table(rows), *notes, f"{config.output} holds the numbers; pictures are beside it", sep="\n")


def command_line(argv: list[str]) -> Evaluation:
    """Return what the flags ask for; dashes and underscores are alike."""
    parser = ArgumentParser(description=__doc__, formatter_class=help_formatter())
    parser.add_class_arguments(Evaluation, nested_key=None, skip={"settings", "unconditional"})
    parser.add_argument("--settings", nargs="+", default=[], metavar="SETTING", help="a row each")
    parser.add_argument("--unconditional", action="store_true", help="ask for no class")
    return Evaluation(**vars(parser.parse_args(train.flags(argv))))


if __name__ == "__main__":
    try:
        main(command_line(sys.argv[1:]))
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
