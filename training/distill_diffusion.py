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

import copy
import sys
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from genserve.cli import configure
from genserve.data.pictures import load_images
from genserve.drawing.local import fair_classes
from genserve.files import digest
from genserve.images import to_pixels
from genserve.learning.checkpoint import Checkpoint
from genserve.learning.config import DenoiserConfig
from genserve.learning.feed import Feed
from genserve.learning.learner import Learner, launch
from genserve.learning.optim import precision_of, seed_dropout, update_ema
from genserve.learning.previews import sample_grid
from genserve.learning.ranks import Ranks
from genserve.measure import metrics
from genserve.measure.features import STATS_FILE, Stats, features_of, load_chooser
from genserve.models.classifier import Classifier
from genserve.models.config import ModelConfig
from genserve.models.consistency import consistency_loss, lower_levels
from genserve.places import located
from genserve.runs.directory import classifier_config, load_denoiser, model_config
from genserve.sampling.noise import Streams
from genserve.sampling.samplers import consistency, sample

PROBED = 1000  # images a measurement
NO_WARM_UP = 10**9  # the step of an average whose decay warms up no more


@dataclass(frozen=True, kw_only=True)
class TrainConfig(DenoiserConfig):
    """One training run; saved in config.json beside the weights.

    Args:
        teacher: run directory of a diffusion model: its network, and its weights to start from where
            start_from has none.
        p_mean, p_std: ln t ~ N(p_mean, p_std**2) are the noise levels t, up to the teacher's sigma_max.
        q: each stage divides the distance between the two levels of a pair by this.
        first_stage: 0 compares most images with no noise at all.
        stages: so many, equally long, one after another.
        floor: the lower level of a pair counts as 0 below this.
        target_decay: of the slow copy whose answers are the targets, a step; without one, 0, it drifts away.
        huber: errors far above it count by size, below by their square.
        few: noise levels, falling, at which the model is measured and shown.
        classifier: run directory of the classifier that chooses, which no judge may; without one the last
            weights are kept.
        probe_every: steps between measurements.
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.q <= 1 or self.stages < 1 or self.huber <= 0 or self.probe_every < 1:
            raise ValueError("q must be above 1, stages and probe_every at least 1, huber above 0")
        if not self.few or list(self.few) != sorted(set(self.few), reverse=True) or self.few[-1] <= 0:
            raise ValueError(f"few must be falling noise levels above 0, got {self.few}")
        if not 0 <= self.target_decay < 1:
            raise ValueError(f"target_decay must be in [0, 1), got {self.target_decay}")


def main(config: TrainConfig) -> None:
    """Train, from the start or from the last checkpoint."""
    launch(fit, config)


def fit(config: TrainConfig, ranks: Ranks) -> None:
    device = ranks.device
    chooser = load_chooser(located(config.classifier)) if config.classifier else None
    teacher = located(config.teacher)
    dataset = load_images(config.data, "train")
    feed = Feed(dataset, config, ranks)
    total = feed.total
    model = model_config(teacher)
    student = load_denoiser(teacher).requires_grad_(True)
    if (model.shape, model.classes or dataset.classes) != (dataset.shape, dataset.classes):
        raise ValueError(f"teacher {config.teacher} knows {model.shape} {model.classes}, the data are others")
    if config.classifier:
        known = classifier_config(located(config.classifier))
        if known.shape != dataset.shape or dataset.classes not in ((), known.classes):
            theirs = f"{known.shape} {', '.join(known.classes)}"
            raise ValueError(f"classifier {config.classifier} knows {theirs}, the data are others")
    if config.few[0] > model.sigma_max:
        raise ValueError(f"few must be at most the teacher's sigma_max {model.sigma_max:g}, got {config.few}")
    checkpoint = Checkpoint(config, model, {"data": dataset}, inputs_of(config), first=ranks.first)
    learner = Learner(student, config, checkpoint, ranks, total)
    parallel = ranks.wrap(learner.model)
    target = copy.deepcopy(learner.model).requires_grad_(False)
    if learner.state:
        target.load_state_dict({name: learner.state[f"target.{name}"] for name in target.state_dict()})
    autocast = precision_of(config.precision, device)

    learner.introduce(dataset)
    probe = Probe(config, model, *chooser) if chooser and ranks.first else None
    kept = learner.state.get("kept")  # the weights that drew best, of which `best` is the distance
    best = learner.state["best"] if kept else torch.tensor(torch.inf)
    for step in range(learner.start, total):
        whole, _ = feed.noised(step, config, no_class=len(model.classes))
        x_0, t, y, eps = map(ranks.mine, whole)
        t = t.clamp(model.sigma_min, model.sigma_max)
        r = lower_levels(t, config.first_stage + step * config.stages // total, config.q, config.floor)
        seed_dropout(config.seed, step, ranks.rank)
        with autocast():
            loss = consistency_loss(parallel, target, x_0, t, r, y, eps, config.huber).mean()
        values = learner.step(step, loss)
        update_ema(target, learner.model, config.target_decay, NO_WARM_UP)
        done = step + 1
        if probe and (done % config.probe_every == 0 or done == total):
            found = probe(learner.ema)
            if learner.looks(step):
                values |= found
            else:
                checkpoint.record(done, **found)
            if found["frechet_distance"] < best:
                best = torch.tensor(found["frechet_distance"])
                kept = {name: value.clone() for name, value in learner.ema.state_dict().items()}
        picture = partial(sample_grid, learner.ema, model, device, config.few)
        slow = {f"target.{name}": value for name, value in target.state_dict().items()}
        learner.record(step, values, picture, kept, best=best, **slow)
    learner.bar.close()


def inputs_of(config: TrainConfig) -> dict[str, str]:
    """Return digests of what the run depends on besides its images."""
    inputs = {"teacher": digest(located(config.teacher) / "weights.safetensors")}
    if config.classifier:
        names = ("weights.safetensors", STATS_FILE)
        inputs["classifier"] = digest(*(located(config.classifier) / name for name in names))
    return inputs


class Probe:
    """Measures a model on its way: the Frechet distance of few images, drawn as they will be."""

    def __init__(self, config: TrainConfig, model: ModelConfig, chooser: Classifier, stats: Stats) -> None:
        self.chooser, self.stats = chooser, stats
        self.sigmas = torch.tensor([*config.few, 0.0])
        self.shape, self.no_class = model.shape, len(model.classes)

    def __call__(self, denoiser: nn.Module) -> dict[str, float]:
        """Return the Frechet distance and how often the class is the one asked for."""
        device = next(denoiser.parameters()).device
        y = fair_classes(PROBED, self.stats.class_counts).to(device)
        noise = Streams(0, range(PROBED))
        x_t = self.sigmas[0].item() * noise(torch.empty(PROBED, *self.shape, device=device))
        asked = y if self.no_class else torch.zeros_like(y)
        x_0 = sample(consistency(x_t, self.sigmas, asked, noise=noise), denoiser)
        features = features_of(self.chooser, torch.from_numpy(to_pixels(x_0)).permute(0, 3, 1, 2))
        found = {
            "frechet_distance": metrics.frechet_between(metrics.moments(features), self.stats.train),
            "class": metrics.accuracy(self.chooser.logits(features), y.cpu()),
        }
        return {key: round(value, 4) for key, value in found.items()}


if __name__ == "__main__":
    configure(main, TrainConfig, __doc__.split("\n\n")[0], sys.argv[1:])
