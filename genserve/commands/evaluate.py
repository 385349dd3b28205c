"""Measure generated images against real ones: how far, how good, how varied, of which class, whether copied.

    genserve evaluate                              the shipped model as it is served, 10,000 images
    genserve evaluate --run runs/mine --settings dpmpp_2m:12 heun:18 ddim:50
    genserve evaluate --settings ddim:50:schedule=cosine:eta=0.5 dpmpp_2m:12:guidance=1.5
    genserve evaluate --repeats 5                  seeds 0 to 4: how much of a difference is chance?
    genserve evaluate --server http://127.0.0.1:8080/predictions/diffusion --settings heun:18
    genserve evaluate --images drawn.npy           uint8 (N, H, W, C)
    genserve evaluate --images drawn/              PNGs, in one folder per class or in one

A setting is SAMPLER:STEPS[:KEY=VALUE]..., SAMPLER one of those that the model is served with (ddim, heun,
...; of an energy also langevin), KEY one of schedule, guidance, eta (of ddim and dpmpp_2m), sigma_min,
sigma_max; of an energy step_size or noise (of langevin), and no guidance. What a setting leaves open is what
the model is served with, but eta is then 0. Without any setting: as the model is served. Of a model that
draws in one evaluation a setting is truncation=VALUE (GAN: no number of the noise is further from 0) or
temperature=VALUE (VAE: the noise times this); without any setting its noise is standard normal. Of a VAE the
bound of the held-out images' likelihood is measured, too.

The columns, in the features of --classifier, against the whole training set:

    FD                   Frechet distance, 0 is best; compare it with that of held-out images, the first row;
                         in the second row classes come as often as in training, like those drawn
    KDx1000              kernel distance (MMD, cubic kernel) times 1000; few images do not make it look worse,
                         only less certain. Images as good as training ones are at 0 on average, and in exact
                         shares of the classes a little below
    precision, density   share of the images that lie among real ones; how densely
    recall, coverage     share of the real images that lie among these; that have one of these close by
    class@1000, class    share in which the classifier sees the requested class, of the first 1,000 and of all
    copy                 distance to the nearest training image, root mean square in gray levels of 255,
                         over the first 1,000: copies would be far below held-out images
    FD judge, x floor    Frechet distance in the features of --judge, and how many times that of the second
                         row; the classifier chose levels and checkpoints and flatters them, the judge has not
    against              Frechet distance to the statistics of --against

Few images bias FD upward and the shares in either direction: compare equal counts, also with held-out rows.
With --repeats, 0.088 ± 0.004 is mean and standard deviation of the draws: a smaller difference is none.

--inception-weights adds a second table, the same in the features of Inception: FID and KID there are those
of the literature. --against and --write-stats use its features then, and pytorch-fid's files fit.

Images are rounded to 8 bits first, as a user gets them. Image k of a seed has noise and a class of its own,
which do not depend on --n and --batch-size. Classes come as often as in the training set: other shares would
count as distance. Without the training images, FD is still computed, from moments in the classifier's run.

The table goes to --output as JSON, and as one line to RUN/evaluations.jsonl, each with the command, the git
revision, the seeds and the digests of the weights.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from genserve.backends import BACKENDS, SERVED_IN, TORCHSCRIPT
from genserve.cli import config_of, plain_errors, typed_command
from genserve.commands.measurement import Measurement, write_pictures
from genserve.files import write_json
from genserve.learning.ranks import join_ranks
from genserve.measure import metrics, records, sources
from genserve.measure.bound import Bound, bound_of
from genserve.measure.inception import RELEASES, WEIGHTS
from genserve.measure.reference import SHIPPED, Judge, Reference, classifier_for, judge_for
from genserve.measure.sources import Images, Plan, drawn_by
from genserve.models.vae import VAE
from genserve.places import IN_CHECKOUT, PROJECT, locate
from genserve.precision import precision_for
from genserve.runs.directory import load_model


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What to measure.

    Args:
        run: run directory of a diffusion model or of an energy; weights/diffusion-mnist if neither images
            nor server is given. Beside them it only names the run that the images are of.
        server: address of a model; measure what it draws.
        images: measure these: a .npy file or a folder.
        settings: SAMPLER:STEPS[:KEY=VALUE]..., as above; one per row of the table.
        n: images per setting. Few images look worse than they are: 10,000 is what numbers are quoted with.
        seed: of the noise.
        repeats: draw this many times, with seeds seed, seed + 1, ...
        unconditional: ask for no class; the class columns are then left out.
        classifier: run directory of the classifier whose features are compared; if not given, the one of
            weights/classifier-* that knows images of this shape and these classes (of a folder, this size).
        judge: its run directory; if not given, the one of weights/judge-* that knows such images.
        data: folder of the data set; if not given, the one that the classifier was trained from.
        inception_weights: with this file, weights-inception-2015-12-05-6726825d.pth of torch-fidelity, also
            compute the FID of the literature; hours on a CPU.
        against: .npz file with the statistics mu and sigma of features, as pytorch-fid writes them.
        write_stats: write such a file of the images measured; of one setting, one repeat.
        precision: of the network that draws, fp32, bf16, or auto: bf16 if the hardware has it; with openvino
            also int8. A server has its own.
        backend: what evaluates the network that draws, torchscript or openvino. A server has its own.
        batch_size: images drawn together.
        device: auto, cpu or cuda.
        threads: CPU threads; 0 is torch's own choice.
        output: JSON file of the table; pictures of samples and of their nearest neighbours go beside it.
        record: add a line to evaluations.jsonl of the run, unless the run is part of an installed genserve.
    """

    run: Path | None = None
    server: str | None = None
    images: Path | None = None
    settings: tuple[str, ...] = ()
    n: int = 10_000
    seed: int = 0
    repeats: int = 1
    unconditional: bool = False
    classifier: Path | None = None
    judge: Path | None = None
    data: Path | None = None
    inception_weights: Path | None = None
    against: Path | None = None
    write_stats: Path | None = None
    precision: str = "fp32"
    backend: str = TORCHSCRIPT
    batch_size: int = 250
    device: str = "auto"
    threads: int = 0
    output: Path = Path("out/evaluation.json")
    record: bool = True

    def __post_init__(self) -> None:
        for name, allowed in (
            ("precision", SERVED_IN),
            ("backend", BACKENDS),
            ("device", ("auto", "cpu", "cuda")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if self.n <= metrics.K or min(self.batch_size, self.repeats) < 1:
            got = f"got {self.n}, {self.batch_size} and {self.repeats}"
            raise ValueError(f"n must be above {metrics.K}, batch_size and repeats above 0, {got}")
        if self.images is not None and self.server is not None:
            raise ValueError("give images or server, not both")
        if len(set(self.settings)) < len(self.settings):
            raise ValueError(f"settings must differ, got {' '.join(self.settings)}")
        if self.images is not None and (self.settings or self.repeats > 1):
            raise ValueError("images are drawn already: neither settings nor repeats would draw them again")
        if self.write_stats is not None:
            if self.write_stats.suffix != ".npz":
                raise ValueError(f"write_stats must be a .npz file, got {self.write_stats}")
            if len(self.settings) > 1 or self.repeats > 1:
                raise ValueError("write_stats describes one set of images: give one setting and no repeats")
        if self.images is None and self.server is None and self.run is None:
            object.__setattr__(self, "run", SHIPPED / "diffusion-mnist")
        locate(self, "run", "classifier", "judge", "data", "inception_weights", "against")

    @property
    def seeds(self) -> range:
        return range(self.seed, self.seed + self.repeats)


def bar(title: str) -> Any:
    """Return a function that shows a progress bar over its argument."""
    return partial(tqdm, desc=title, leave=False, dynamic_ncols=True)


def model_of(config: Evaluation) -> tuple[tuple[int | None, int, int], tuple[str, ...], str | None]:
    """Return shape and classes, () if it names none, of the images, and a digest of the weights."""
    if config.server is not None:
        spec = sources.described(config.server)
        return spec.shape, spec.classes, spec.weights
    if config.run is not None:
        return *drawn_by(config.run), records.digest(config.run / "weights.safetensors")
    assert config.images is not None
    return sources.shape_of(config.images), (), None


def images_of(config: Evaluation, reference: Reference, device: torch.device) -> Iterator[Images]:
    """Yield the images to measure, the repeats of a setting one after the other."""
    if config.images is not None:
        x, y = sources.read(config.images, reference.shape, reference.classes)
        return iter([Images(config.images.name, x, y, {})])
    plan = Plan(
        settings=config.settings,
        n=config.n,
        seeds=config.seeds,
        class_counts=reference.stats.class_counts,
        unconditional=config.unconditional,
    )
    if config.server is not None:
        return sources.asked(config.server, plan, bar)
    assert config.run is not None
    return sources.drawn(config.run, plan, device, config.precision, config.batch_size, bar, config.backend)


def notes_on(config: Evaluation, reference: Reference) -> list[str]:
    """Return a sentence for each number that cannot be measured, with the reason."""
    notes = []
    if reference.train is None:
        notes.append(
            f"{reference.name} is not below {reference.root} (--data): FD is against the moments the "
            "classifier holds; KD, precision, density, recall, coverage, copy and FID need the training set"
        )
    if config.inception_weights is None:
        notes.append(f"Inception-FID was not computed: --inception-weights needs {WEIGHTS} from {RELEASES}")
    return notes


def bound_on(config: Evaluation, reference: Reference, device: torch.device) -> Bound | None:
    """Return the bound of all held-out images by a run that has one; None for others, or without images."""
    if config.run is None or config.server is not None or config.images is not None or reference.test is None:
        return None
    model = load_model(config.run).to(device)
    if not isinstance(model, VAE):
        return None
    test, rng = reference.test, torch.Generator(device).manual_seed(config.seed)
    y = test.y if drawn_by(config.run)[1] else torch.zeros_like(test.y)
    return bound_of(model, test.x, y, rng)


def main(config: Evaluation, command: str) -> None:
    """Draw or read the images, measure them, write and print the table."""
    if config.threads:
        torch.set_num_threads(config.threads)
    device = join_ranks(config.device).device
    if config.precision == "auto":
        config = replace(config, precision=precision_for(device))
    shape, classes, weights = model_of(config)
    classifier = config.classifier or classifier_for(shape, classes)
    reference = Reference(classifier, config.data, device, bar)
    if config.images is None and (shape != reference.shape or classes not in ((), reference.classes)):
        raise ValueError(f"{config.server or config.run} draws other images than {classifier} knows")
    judge_path = config.judge or judge_for(reference.shape, reference.classes)
    judge = Judge(judge_path, reference.shape, device, bar) if judge_path else None
    measurement = Measurement(reference, judge, config.inception_weights, config.against, device, bar)
    notes = notes_on(config, reference)
    config.output.parent.mkdir(parents=True, exist_ok=True)
    rows = rows_of(config, measurement, device)
    bound = bound_on(config, reference, device)
    if bound is not None:
        notes.append(
            f"held-out images, class given: {bound.reconstruction:.2f} nats of "
            f"reconstruction + {bound.kl:.2f} of KL an image, {bound.bits_per_dim:.4f} bits/dim or fewer"
        )
    result = records.provenance(command) | {
        "source": str(config.images or config.server or config.run),
        "weights": weights,
        **records.classifier_of("classifier", classifier),
        **records.classifier_of("judge", judge_path),
        "seed": config.seed,
        "seeds": [] if config.images else list(config.seeds),
        "n": rows[-1]["n"],
        "unconditional": config.unconditional,
        "precision": None if config.images or config.server else config.precision,
        "backend": None if config.images or config.server else config.backend,
        "rows": rows,
        **({"bound": bound._asdict()} if bound else {}),
        "notes": notes,
    }
    write_json(config.output, result)
    if config.record and config.run is not None and (IN_CHECKOUT or PROJECT not in config.run.parents):
        records.append(config.run / "evaluations.jsonl", result)
    last = f"{config.output} holds the numbers; pictures are beside it"
    print(*records.tables(rows), *notes, last, sep="\n")


def rows_of(config: Evaluation, measurement: Measurement, device: torch.device) -> list[dict[str, Any]]:
    """Return the rows of the table: held-out images, then each setting; write its pictures."""
    reference, rows = measurement.reference, []
    for name, repeats in groupby(images_of(config, reference, device), key=lambda given: given.name):
        draws = []
        for given in repeats:
            draws.append(measurement.row(given, config.write_stats))
            if len(draws) == 1:
                stem = f"{config.output.stem}-{name.replace(':', '-').replace('=', '-')}"
                write_pictures(config.output.with_name(stem), given.x, given.y, reference)
        rows.append(records.together(draws))
    held_out = reference.held_out(max(row["n"] for row in rows))
    floor = [measurement.row(Images(name, x, y, {})) for name, (x, y) in held_out.items()]
    distances = reference.floor() | (measurement.judge.floor() if measurement.judge else {})
    rows = (floor or [{"name": "held-out images"} | distances]) + rows
    if measurement.judge is not None and floor:
        rows = records.with_multiples(rows, floor[-1]["judge_frechet_distance"])
    return rows


def command_line(argv: list[str]) -> Evaluation:
    """Return what the flags ask for; dashes and underscores are alike."""
    return config_of(
        Evaluation,
        __doc__,
        argv,
        lists={"settings": (str, "SAMPLER:STEPS[:KEY=VALUE]..., one per row of the table")},
        switches={"unconditional": "ask for no class"},
    )


def run(argv: list[str]) -> None:
    """Do what the flags ask for; a mistake ends the program in one line."""
    with plain_errors():
        main(command_line(argv), typed_command())
