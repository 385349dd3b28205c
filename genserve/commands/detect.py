"""Measure how well an energy tells the unfamiliar from what it learnt, by the energy alone.

    genserve detect                                 the shipped energy at the level it is read at
    genserve detect --sigmas 0.05 0.1 0.3 0.5 1     which noise level tells best?
    genserve detect --run weights/energy-mnist-pcd

For each set of unfamiliar pictures, the AUROC: the share of pairs in which it has more energy than a
held-out picture of what was learnt; 1 is perfect, 0.5 is chance. The sets:

    uniform, gaussian, faint    noise: uniform over the range; of the data's mean and std; std 0.3 on pictures
    inverted, rotated           held-out pictures with black and white swapped; turned by a quarter
    shifted, blurred            moved by 8 pixels; averaged over 5 x 5
    shuffled, mixed             their 7 x 7 patches in another order; the mean of two
    letters                     A to J in print, white on black, of several sizes and tilts
    CIFAR-10, gray              photographs, cut to size, if they are below --data
    Fashion-MNIST               clothes, if they are below --data
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from tqdm import tqdm

from genserve.cli import config_of, plain_errors
from genserve.data.pictures import DataConfig, load_images
from genserve.files import write_json
from genserve.images import normalise
from genserve.places import locate
from genserve.runs.defaults import walk_of
from genserve.runs.directory import load_model, model_config, trained_with


@dataclass(frozen=True, kw_only=True)
class Detection:
    """What to measure.

    Args:
        run: run directory of an energy.
        sigmas: noise levels to read it at; if not given, the one it is served with.
        n: held-out pictures, and pictures of each unfamiliar set; no more than the set has.
        data: folder of the data sets.
        batch_size: pictures read together.
        threads: CPU threads; 0 is torch's own choice.
        output: JSON file of the table.
    """

    run: Path = Path("weights/energy-mnist")
    sigmas: tuple[float, ...] = ()
    n: int = 2000
    data: Path = Path("data")
    batch_size: int = 250
    threads: int = 0
    output: Path = Path("out/detection.json")

    def __post_init__(self) -> None:
        if self.n < 2 or self.batch_size < 1:
            raise ValueError(f"n must be at least 2 and batch_size 1, got {self.n} and {self.batch_size}")
        if any(sigma <= 0 for sigma in self.sigmas):
            raise ValueError(f"sigmas must be above 0, got {self.sigmas}")
        locate(self, "run", "data")


def unfamiliar(known: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
    """Return sets of pictures unlike the known ones, (N, C, H, W) in [-1, 1], some made of those."""
    noise = partial(torch.randn, known.shape, generator=rng)
    h, w = known.shape[2] // 4, known.shape[3] // 4
    patches = F.unfold(known, (h, w), stride=(h, w))  # (N, C h w, 16)
    order = torch.rand(len(known), 1, patches.shape[2], generator=rng).argsort(-1).expand_as(patches)
    return {
        "uniform noise": torch.empty_like(known).uniform_(-1, 1, generator=rng),
        "gaussian noise": (known.mean() + known.std() * noise()).clamp(-1, 1),
        "faint noise": (known + 0.3 * noise()).clamp(-1, 1),
        "inverted": -known,
        "rotated": known.rot90(1, (2, 3)),
        "shifted": known.roll(known.shape[3] * 2 // 7, dims=3),
        "blurred": F.avg_pool2d(F.pad(known, (2, 2, 2, 2), mode="replicate"), 5, stride=1),
        "shuffled": F.fold(patches.gather(2, order), known.shape[2:], (h, w), stride=(h, w)),
        "mixed": (known + known.roll(1, dims=0)) / 2,
    }


def letters(shape: tuple[int, int, int], n: int) -> Tensor:
    """Return printed letters, (n, C, H, W) in [-1, 1]: A to J in turn, in several sizes, tilted."""
    c, h, w = shape
    rng = np.random.default_rng(0)
    sheets = []
    for k in range(n):
        font = ImageFont.load_default(round(h * rng.uniform(0.6, 0.85)))
        sheet = Image.new("L", (w, h))
        ImageDraw.Draw(sheet).text((w / 2, h / 2), "ABCDEFGHIJ"[k % 10], fill=255, font=font, anchor="mm")
        sheets.append(np.array(sheet.rotate(rng.uniform(-15, 15), Image.Resampling.BILINEAR)))
    return normalise(torch.from_numpy(np.stack(sheets)).unsqueeze(1)).expand(-1, c, -1, -1)


def other_sets(shape: tuple[int, int, int], root: Path, n: int) -> Iterator[tuple[str, Tensor]]:
    """Yield the other data sets below the root, as pictures of this shape, with their titles."""
    for name, title in (("fashion-mnist", "Fashion-MNIST"), ("cifar10", "CIFAR-10")):
        config = DataConfig(name=name, root=str(root), size=shape[1], channels=shape[0], download=False)
        try:
            images = load_images(config, "test")
        except FileNotFoundError:
            folder = root / "cifar10-jpeg"
            if name != "cifar10" or not folder.is_dir():
                continue
            folder_config = DataConfig(name="folder", root=str(folder), size=shape[1], channels=shape[0])
            images = load_images(folder_config, "test")
        yield title, normalise(images.x[torch.arange(n) * len(images) // n])


@torch.no_grad()
def energies(
    energy: nn.Module, x: Tensor, sigma: float, no_class: int, batch_size: int, title: str
) -> Tensor:
    """Return the energy of each picture, (N,)."""
    parts = tqdm(x.split(batch_size), desc=f"{title}, sigma {sigma:g}", leave=False)
    return torch.cat(
        [energy(p, p.new_full((len(p),), sigma), torch.full((len(p),), no_class)) for p in parts]
    )


def main(config: Detection) -> None:
    """Read the energies and compare them."""
    if config.threads:
        torch.set_num_threads(config.threads)
    model = model_config(config.run)
    if not model.kind.slopes:
        raise ValueError(f"{config.run} is a run of the family {model.family}, must be of the family energy")
    energy = load_model(config.run)
    learnt = trained_with(config.run, "data") | {"root": str(config.data), "download": False}
    known = load_images(DataConfig(**learnt), "test")
    n = min(config.n, len(known))
    picked = torch.arange(n) * len(known) // n
    x = normalise(known.x[picked])
    sets = unfamiliar(x, torch.Generator().manual_seed(0)) | {"letters": letters(model.shape, n)}
    sets |= dict(other_sets(model.shape, config.data, n))
    sigmas = config.sigmas or (walk_of(config.run).read_sigma,)
    read: Callable[[Tensor, float, str], Tensor] = lambda x, sigma, title: energies(  # noqa: E731
        energy, x, sigma, len(model.classes), config.batch_size, title
    )
    rows: dict[str, list[float]] = {name: [] for name in ("held-out", *sets)}
    for sigma in sigmas:
        inside = read(x, sigma, "held-out")
        rows["held-out"].append(inside.mean().item())
        truth = torch.cat([torch.zeros(len(x)), torch.ones(len(x))])
        for name, other in sets.items():
            outside = read(other, sigma, name)
            rows[name].append(float(roc_auc_score(truth, torch.cat([inside, outside]))))
    config.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(config.output, {"source": str(config.run), "n": n, "sigmas": sigmas, "rows": rows})
    print("AUROC".ljust(18) + "".join(f"sigma {sigma:g}".rjust(12) for sigma in sigmas))
    for name, values in rows.items():
        if name != "held-out":
            print(name.ljust(18) + "".join(f"{value:12.4f}" for value in values))
    print("mean energy".ljust(18) + "".join(f"{value:12.2f}" for value in rows["held-out"]))


def command_line(argv: list[str]) -> Detection:
    """Return what the flags ask for; dashes and underscores are alike."""
    lists = {"sigmas": (float, "noise levels to read it at (default: as it is served)")}
    return config_of(Detection, __doc__, argv, lists=lists)


def run(argv: list[str]) -> None:
    """Do what the flags ask for; a mistake ends the program in one line."""
    with plain_errors():
        main(command_line(argv))
