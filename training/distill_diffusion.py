"""Distil a diffusion model into one that draws in 1 to 4 evaluations: consistency tuning.

    python training/distill_diffusion.py --config training/configs/consistency-mnist.yaml
    python training/distill_diffusion.py --teacher runs/mine --data.name folder --data.root DIR --name fast
    torchrun --nproc-per-node 2 training/distill_diffusion.py --config ...  # the same curve on two ranks

The student starts as the teacher, or as an earlier student with --start-from, and learns from the images to
answer with the end of a path, not with the mean of all ends. It is sensitive: its loss does not tell good
from bad. With a classifier it is measured as it goes, and the weights that drew best are kept.

Run it again after a kill and it goes on from the last checkpoint, to the weights an unbroken run ends with.
docs/training.md says what may change then.
"""

import math
import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from genserve.cli import configure
from genserve.data.pictures import ImageSet, load_images
from genserve.drawing.local import draw, fair_classes
from genserve.files import digest
from genserve.learning.checkpoint import Checkpoint
from genserve.learning.config import DenoiserConfig
from genserve.learning.feed import Feed
from genserve.learning.optim import (
    averaged,
    diverged,
    learning_rate,
    placed,
    precision_of,
    seed_dropout,
    set_learning_rate,
    update_ema,
)
from genserve.learning.previews import consistent, sample_grid
from genserve.learning.ranks import Ranks, launch
from genserve.learning.recorder import Recorder
from genserve.measure import metrics
from genserve.measure.features import STATS_FILE, Stats, features_of, load_chooser
from genserve.models.classifier import Classifier
from genserve.models.config import ModelConfig
from genserve.models.consistency import consistency_loss, lower_levels
from genserve.models.denoiser import Denoiser
from genserve.places import located
from genserve.runs.directory import classifier_config, load_denoiser, model_config

PROBED = 1000  # images per measurement
NO_WARM_UP = 10**9  # a step so late that the decay of an average no longer warms up

Chooser = tuple[Classifier, Stats]  # chooses the weights that are kept


@dataclass(frozen=True, kw_only=True)
class TrainConfig(DenoiserConfig):
    """One training run; saved in config.json beside the weights.

    Args:
        teacher: run directory of a diffusion model: its network, and its weights to start from unless
            start_from has others.
        p_mean, p_std: ln t ~ N(p_mean, p_std**2) are the noise levels t, up to the teacher's sigma_max.
        q: each stage divides the distance between the two levels of a pair by this.
        first_stage: 0 compares most images with no noise at all.
        stages: their number; they are equally long.
        floor: the lower level of a pair counts as 0 below this.
        target_decay: per step, of the slow copy whose answers are the targets; at 0, without such a copy,
            the student drifts away.
        huber: errors far above it count by their size, those below by their square.
        few: noise levels, falling, at which the model is measured and shown.
        classifier: run directory of the classifier that chooses the weights, which must not be a judge;
            without one the last weights are kept.
        probe_every: steps between measurements.
        compile: let torch compile the network: a minute before the first step, then faster ones.
    """

    name: str = "consistency"
    teacher: str = "weights/diffusion-mnist"
    lr: float = 1e-4
    ema_decay: float = 0.998
    p_mean: float = 0.3
    p_std: float = 1.6
    q: float = 4.0
    first_stage: int = 0
    stages: int = 2
    floor: float = 0.0
    target_decay: float = 0.98
    huber: float = 0.06
    few: tuple[float, ...] = (40.0, 0.8)
    classifier: str | None = None
    probe_every: int = 250
    compile: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.q <= 1 or self.stages < 1 or self.huber <= 0 or self.probe_every < 1:
            raise ValueError("q must be above 1, stages and probe_every at least 1, huber above 0")
        if not self.few or list(self.few) != sorted(set(self.few), reverse=True) or self.few[-1] <= 0:
            raise ValueError(f"few must be falling noise levels above 0, got {self.few}")
        if not 0 <= self.target_decay < 1:
            raise ValueError(f"target_decay must be in [0, 1), got {self.target_decay}")


def loaded(config: TrainConfig, dataset: ImageSet) -> tuple[ModelConfig, Denoiser, Chooser | None]:
    """Return the teacher's configuration, a network with its weights that learns, and what chooses.

    Raises:
        ValueError: teacher, classifier, levels and data do not belong together, or the classifier is a judge.
        FileNotFoundError, OSError: a run cannot be read.
    """
    chooser = load_chooser(located(config.classifier)) if config.classifier else None
    teacher = located(config.teacher)
    model = model_config(teacher)
    student = load_denoiser(teacher).requires_grad_(True)
    if (model.shape, model.classes or dataset.classes) != (dataset.shape, dataset.classes):
        raise ValueError(f"teacher {config.teacher} knows {model.shape} {model.classes}, the data are others")
    if config.classifier:
        known = classifier_config(located(config.classifier))
        if known.shape != dataset.shape or dataset.classes not in ((), known.classes):
            images = f"{known.shape} {', '.join(known.classes)}"
            raise ValueError(f"classifier {config.classifier} knows {images}, the data are others")
    if config.few[0] > model.sigma_max:
        raise ValueError(f"few must be at most the teacher's sigma_max {model.sigma_max:g}, got {config.few}")
    return model, student, chooser


def inputs_of(config: TrainConfig) -> dict[str, str]:
    """Return digests of what the run depends on besides its images."""
    inputs = {"teacher": digest(located(config.teacher) / "weights.safetensors")}
    if config.classifier:
        names = ("weights.safetensors", STATS_FILE)
        inputs["classifier"] = digest(*(located(config.classifier) / name for name in names))
    return inputs


def pairs(config: TrainConfig, model: ModelConfig, feed: Feed, step: int) -> tuple[Tensor, ...]:
    """Return this rank's x_0, t, r, y and eps of a step: images, and the two noise levels of each."""
    batch, _ = feed.noised(step, config, no_class=len(model.classes))
    x_0, t, y, eps = map(feed.ranks.mine, batch)
    t = t.clamp(model.sigma_min, model.sigma_max)
    stage = config.first_stage + step * config.stages // feed.total
    return x_0, t, lower_levels(t, stage, config.q, config.floor), y, eps


class Probe:
    """Measures a model while it learns, if there is a classifier, and keeps the weights that draw best.

    Args:
        state: what the last checkpoint holds; empty for a new run.
    """

    def __init__(
        self, config: TrainConfig, model: ModelConfig, chooser: Chooser | None, state: dict[str, Any]
    ) -> None:
        self.every, self.model, self.setting = config.probe_every, model, consistent(model, config.few)
        self.chooser = chooser
        self.kept: dict[str, Tensor] | None = state.get("kept")  # the weights that drew best
        self.best = torch.tensor(torch.inf)  # their Frechet distance

    def measure(self, done: int, total: int, denoiser: nn.Module) -> dict[str, float]:
        """Return the Frechet distance, and the share of classes drawn right, if they are due; else nothing.

        Args:
            done, total: steps of the run.
        """
        if self.chooser is None or (done % self.every and done < total):
            return {}
        classifier, stats = self.chooser
        classes = fair_classes(PROBED, stats.class_counts)
        y = classes if self.model.classes else torch.zeros_like(classes)
        features = features_of(classifier, draw(denoiser, self.model, self.setting, y, batch_size=PROBED))
        distance = round(metrics.frechet_between(metrics.moments(features), stats.train), 4)
        if distance < self.best:
            self.best.fill_(distance)
            self.kept = {name: value.clone() for name, value in denoiser.state_dict().items()}
        accuracy = round(metrics.accuracy(classifier.logits(features), classes), 4)
        return {"frechet_distance": distance, "class": accuracy}


# ---- the loop ----------------------------------------------------------------------------------------------


def main(config: TrainConfig) -> None:
    """Train, from the start or from the last checkpoint."""
    launch(fit, config)


def fit(config: TrainConfig, ranks: Ranks) -> None:
    """Train as one of these ranks; raises FloatingPointError if the run diverges."""
    dataset = load_images(config.data, "train")
    feed = Feed(dataset, config, ranks)
    model, student, chooser = loaded(config, dataset)
    student = placed(student, ranks.device)
    ema = averaged(student)
    optimizer = torch.optim.AdamW(student.parameters(), betas=config.betas, weight_decay=config.weight_decay)
    checkpoint = Checkpoint(config, model, {"data": dataset}, inputs_of(config), first=ranks.first)
    recorder = Recorder(config, checkpoint, feed, student, ema, optimizer)
    probe = Probe(config, model, chooser, recorder.state)
    target = averaged(student)  # a slow copy, whose answers are the targets
    slow = {f"target.{name}": value for name, value in target.state_dict().items()}
    recorder.include(slow | {"best": probe.best})
    parallel = ranks.wrap(student, config.compile)
    autocast = precision_of(config.precision, ranks.device)

    for step in range(recorder.start, feed.total):
        lr = learning_rate(step, feed.total, config.warmup, config.lr)
        set_learning_rate(optimizer, lr)
        x_0, t, r, y, eps = pairs(config, model, feed, step)
        seed_dropout(config.seed, step, ranks.rank)
        with autocast():
            loss = consistency_loss(parallel, target, x_0, t, r, y, eps, config.huber).mean()

        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        grad_norm = clip_grad_norm_(student.parameters(), config.grad_clip).item()
        mean_loss = ranks.mean(loss.detach())
        if not math.isfinite(mean_loss + grad_norm):
            raise diverged(config, step, feed.total, f"loss {mean_loss} and gradient norm {grad_norm}")
        optimizer.step()
        update_ema(ema, student, config.ema_decay, step)
        update_ema(target, student, config.target_decay, NO_WARM_UP)

        values = {"loss": mean_loss, "lr": lr, "grad_norm": grad_norm}
        measured = probe.measure(step + 1, feed.total, ema) if ranks.first else {}
        recorder.record(step, values, lambda: sample_grid(ema, model, probe.setting), measured, probe.kept)
    recorder.close()


if __name__ == "__main__":
    configure(main, TrainConfig, __doc__.split("\n\n")[0], sys.argv[1:])
