"""Draw pictures of the process.

    genserve figures all                                   every figure of the shipped model
    genserve figures landscape --run weights/energy-mnist
    genserve figures quality --n 2000                      the long one; it goes on where it was

The figures, RUN-FIGURE.png (or .gif) in --output-dir:

    denoising   8 images, one per row, at 7 moments and at the end
    animation   the same of 64 images, as an animation
    samples     8 images of each class, one class per column
    schedules   the noise levels of every schedule, for as many steps as the setting has
    quality     Frechet distance against evaluations of the network, one line per sampler; the numbers are in
                RUN-quality.json, and the points in it are not measured again
    landscape   of an energy: planes through where a chain is; energy and gradient along three chains

x_t is shown as x_t / sqrt(1 + sigma**2), at moments evenly spread over the appearance of the image. Equal
seeds give equal pixels. A landscape's planes go through a chain's own x_t, noise and all, toward the three
images where chains end. The dot is the chain, the line its path, projected. Each plane has its own colours:
dark is low. The energy is read without a class. An energy without noise levels has no planes: they would
leave [-1, 1], where it learnt.
"""

import io
from dataclasses import dataclass
from functools import partial
from itertools import chain, cycle
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from genserve import images
from genserve.cli import config_of, plain_errors
from genserve.commands import plots
from genserve.drawing.trajectory import caption, moments, shown, trajectory
from genserve.files import write_atomic
from genserve.learning.ranks import join_ranks
from genserve.measure.curve import HELD_OUT, Curve, lines
from genserve.measure.reference import SHIPPED, classifier_for
from genserve.places import locate
from genserve.precision import PRECISIONS, precision_for
from genserve.runs.defaults import spec_of
from genserve.runs.directory import load_model, model_config
from genserve.sampling.samplers import Query
from genserve.sampling.schedules import SCHEDULES, levels
from genserve.sampling.settings import Setting


@dataclass(frozen=True, kw_only=True)
class FigureConfig:
    """What to draw.

    Args:
        figures: their names; all are those that the run can have.
        run: run directory of a diffusion model or of an energy.
        output_dir: where they go.
        seed: of the noise.
        label: the class of denoising, animation and landscape; if not given, one after the other.
        setting: SAMPLER:STEPS[:KEY=VALUE]..., as for evaluate; if not given, as the run is served.
        n: images of each point of quality.
        evaluations: of the network, one per point of quality; heun takes an odd number.
        classifier: run directory of the classifier whose features quality compares; if not given, the one
            that fits.
        data: folder of its data set; if not given, the one that the classifier was trained from.
        device: auto, cpu or cuda.
        precision: of the network that quality measures: auto (bf16 where the hardware has it), bf16 or fp32.
    """

    figures: tuple[str, ...]
    run: Path = Path("weights/diffusion-mnist")
    output_dir: Path = Path("out/figures")
    seed: int = 0
    label: str | None = None
    setting: str | None = None
    n: int = 2000
    evaluations: tuple[int, ...] = (4, 6, 9, 13, 18, 25, 35, 50)
    classifier: Path | None = None
    data: Path | None = None
    device: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        if self.precision not in ("auto", *PRECISIONS):
            raise ValueError(f"precision must be auto, {' or '.join(PRECISIONS)}, got {self.precision!r}")
        locate(self, "run", "classifier", "data")


class Subject:
    """The run that figures are made of."""

    def __init__(self, config: FigureConfig) -> None:
        self.config, self.model = config, model_config(config.run)
        self.spec = spec_of(config.run)
        self.plain = self.spec.walk is not None and self.spec.walk.plain
        self.device = join_ranks(config.device).device
        network = load_model(config.run)
        self.network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.tuned = self.spec.tuned
        self.setting = Setting.of(self.spec.defaults)
        if config.setting:
            self.setting = Setting.parse(config.setting, self.spec.defaults)

    def classes(self, n: int) -> Tensor:
        """Return the classes of n images, (n,)."""
        names, label = self.model.classes, self.config.label
        if label is not None and label not in names:
            raise ValueError(f"label must be one of {', '.join(names) or 'no classes'}, got {label!r}")
        y = torch.arange(n) if label is None else torch.full((n,), names.index(label))
        return y % max(1, len(names))

    def watched(self, y: Tensor) -> tuple[images.Pixels, list[Query]]:
        """Return the images of these classes, (N, H, W, C), and where the sampler looked."""
        x, looks = trajectory(self.network, self.model, self.setting, y, self.config.seed)
        return x.permute(0, 2, 3, 1).numpy(), looks


def denoising(subject: Subject) -> Figure:
    """From noise to 8 images."""
    pixels, looks = subject.watched(subject.classes(8))
    picked = moments(looks, 7)
    film = np.stack([*(shown(looks, k) for k in picked), pixels], axis=1)
    return plots.sheet(film, [*(caption(looks, k) for k in picked), "image"])


def animation(subject: Subject) -> bytes:
    """From noise to 64 images. All frames but the last have 6 grays a channel: noise then takes less room."""
    pixels, looks = subject.watched(subject.classes(64))
    coarse = [np.rint(shown(looks, k) / 51).astype(np.uint8) * 51 for k in moments(looks, 8)]
    scale = max(1, round(56 / pixels.shape[1]))
    return images.gif([images.enlarge(images.grid(p, 8), scale) for p in [*coarse, pixels]], 160, 3000)


def samples(subject: Subject) -> Figure:
    """What it draws."""
    names = list(subject.model.classes[:10])
    columns = len(names) or 8
    pixels, _ = subject.watched(torch.arange(8 * columns) % columns * bool(names))
    return plots.sheet(pixels.reshape(8, columns, *pixels.shape[1:]), names)


def schedules(subject: Subject) -> Figure:
    """Where the samplers look."""
    fig, ax = plots.plot("step", r"noise level $\sigma$")
    low, high, steps = subject.model.sigma_min, subject.model.sigma_max, subject.setting.steps
    names = [name for name in SCHEDULES if name != "tuned" or any(t.steps == steps for t in subject.tuned)]
    named = {name: levels(name, steps, low, high, subject.tuned)[:-1] for name in names}
    for (name, sigmas), colour in zip(named.items(), cycle(plots.COLOURS), strict=False):
        ax.semilogy(sigmas.numpy(), ".-", color=colour, label=name.replace("_", " "))
    ax.legend(frameon=False)
    return fig


def quality(subject: Subject) -> Figure:
    """How many evaluations does a sampler need?"""
    config, model = subject.config, subject.model
    curve = Curve(
        directory=config.run,
        classifier=config.classifier or classifier_for(model.shape, model.classes, SHIPPED),
        root=config.data,
        n=config.n,
        seed=config.seed,
        precision=precision_for(subject.device) if config.precision == "auto" else config.precision,
        device=subject.device,
    )
    compared = lines(subject.spec.defaults, config.evaluations)
    path = config.output_dir / f"{config.run.name}-quality.json"
    settings = [HELD_OUT, *chain(*compared.values())]
    rows = curve.rows(
        path, tqdm(settings, desc="settings"), lambda text: partial(tqdm, desc=text, leave=False)
    )
    fig, ax = plots.plot("evaluations of the network", "Fréchet distance")
    for (name, line), colour in zip(compared.items(), cycle(plots.COLOURS), strict=False):
        points = [(rows[text]["nfe"], rows[text]["frechet_distance"]) for text in line]
        ax.loglog(*zip(*points, strict=True), ".-", color=colour, label=name)
    floor = rows[HELD_OUT]["frechet_distance"]
    ax.axhline(floor, color="0.4", ls="--", lw=1.5, label=HELD_OUT)
    ax.set_ylim(bottom=0.8 * min(floor, *(row["frechet_distance"] for row in rows.values())))
    ticks = sorted({rows[text]["nfe"] for name, line in compared.items() for text in line if name != "Heun"})
    ax.set_xticks(ticks, [str(nfe) for nfe in ticks])
    ax.minorticks_off()
    ax.legend(frameon=False)
    return fig


def landscape(subject: Subject) -> Figure:
    """Three chains: planes through the first one, its pictures, the energies and gradients of all."""
    pixels, looks = subject.watched(subject.classes(3))
    n_classes = len(subject.model.classes)
    return plots.landscape(plots.Chains(subject.network, n_classes, subject.plain, looks, pixels))


MAKERS = {f.__name__: f for f in (denoising, animation, samples, schedules, quality, landscape)}


def main(config: FigureConfig) -> None:
    """Draw the figures and print their files."""
    subject = Subject(config)
    lacks = (
        {"landscape"} if subject.spec.walk is None else {"schedules", "quality"} if subject.plain else set()
    )
    names = [name for name in MAKERS if name not in lacks] if "all" in config.figures else config.figures
    if impossible := lacks & set(names):
        raise ValueError(f"{config.run} has no such figures: {', '.join(sorted(impossible))}")
    config.output_dir.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = config.output_dir / f"{config.run.name}-{name}{'.gif' if name == 'animation' else '.png'}"
        with matplotlib.rc_context(plots.STYLE):
            made = MAKERS[name](subject)
            if isinstance(made, Figure):
                buffer = io.BytesIO()
                made.savefig(buffer, metadata={"Software": None})  # a version would make equal figures differ
                made = buffer.getvalue()
            write_atomic(path, made)
        print(path)


def command_line(argv: list[str]) -> FigureConfig:
    """Return what the flags ask for; dashes and underscores are alike."""
    return config_of(
        FigureConfig,
        __doc__,
        argv,
        lists={"evaluations": (int, "of the network, one per point of quality; heun takes an odd number")},
        positional=("figures", [*MAKERS, "all"], "what to draw"),
    )


def run(argv: list[str]) -> None:
    """Do what the flags ask for; a mistake ends the program in one line."""
    with plain_errors():
        main(command_line(argv))
