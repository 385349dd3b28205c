"""Train the classifier whose features measure the generators: real images in, a run directory out.

    python training/train_classifier.py --config training/configs/classifier-mnist.yaml
    python training/train_classifier.py --config ... --epochs 1 --max-batches-per-epoch 100     # a quick look

Beside the weights it writes train_features_stats.safetensors: the moments of the features of training and of
held-out images, all that a Frechet distance needs. Run it again after a kill and it goes on where it was;
docs/training.md says what may change then.
"""

import math
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from tqdm import tqdm

from genserve.cli import configure
from genserve.data.batches import AugmentConfig, augmented, batch_indices
from genserve.data.pictures import DataConfig, ImageSet, load_images
from genserve.images import normalise
from genserve.learning.checkpoint import Checkpoint, held
from genserve.learning.config import check
from genserve.learning.optim import (
    averaged,
    generator,
    learning_rate,
    placed,
    precision_of,
    set_learning_rate,
    update_ema,
)
from genserve.learning.ranks import join_ranks
from genserve.measure import metrics
from genserve.measure.features import features_of, write_stats
from genserve.models.classifier import Classifier, ClassifierConfig, Whitening

STATISTICS = 8  # batches from which BatchNorm's last means and variances are computed


@dataclass(frozen=True, kw_only=True)
class NetConfig:
    """The classifier (genserve/models/classifier.py).

    Args:
        blocks: residual, or pooled: slower, and better for photographs.
        patch: side of the pixel squares folded into channels first, 1 for none.
        channels: width of each level; between levels the resolution halves.
        n_features: width of the penultimate layer.
        norm: group, or batch, which learns faster.
    """

    blocks: str = "residual"
    patch: int = 2
    channels: tuple[int, ...] = (64, 96)
    n_features: int = 128
    norm: str = "group"


@dataclass(frozen=True, kw_only=True)
class WarpConfig:
    """Smooth changes that keep the class of an image; they blur it a little.

    Args:
        degrees: turn by up to this angle.
        scale: enlarge or shrink by up to this share.
        shift: move by up to this many pixels.
    """

    degrees: float = 0.0
    scale: float = 0.0
    shift: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run; saved in config.json beside the weights.

    Args:
        name: the run is written to OUTPUT/NAME.
        output: where run directories are.
        start_from: run directory of a classifier like this one: begin a new run with its weights.
        data: the images.
        net: the network.
        judge: it only measures; whatever chooses steps, levels or checkpoints refuses it.
        augment: moves by whole pixels, and mirroring.
        warp: turning, scaling and moving by parts of a pixel.
        epochs: passes over the data.
        max_batches_per_epoch: cut each pass short.
        batch_size: images per step.
        lr: peak learning rate.
        bias_lr: the biases of norms learn this many times faster.
        warmup: steps of linear rise; a cosine to 0 follows.
        momentum: of gradient descent with Nesterov's momentum; 0 takes AdamW instead.
        weight_decay: lr times this share of a weight is taken away per step.
        label_smoothing: share of the target that goes to all classes alike.
        ema_decay: per step, of the averaged weights, which are kept.
        precision: auto (bf16 where the hardware has it), bf16 or fp32.
        seed: of everything random.
        tensorboard: also write TensorBoard files.
        device: auto, cpu or cuda.
        threads: CPU threads; 0 is torch's own choice.
    """

    name: str = "classifier"
    output: str = "runs"
    start_from: str | None = None
    data: DataConfig = field(default_factory=DataConfig)
    net: NetConfig = field(default_factory=NetConfig)
    judge: bool = False
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    warp: WarpConfig = field(default_factory=WarpConfig)
    epochs: int = 20
    max_batches_per_epoch: int | None = None
    batch_size: int = 128
    lr: float = 2e-3
    bias_lr: float = 1.0
    warmup: int = 100
    momentum: float = 0.0
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    ema_decay: float = 0.999
    precision: str = "auto"
    seed: int = 0
    tensorboard: bool = False
    device: str = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        check(self)


def warped(x: Tensor, warp: WarpConfig, generator: torch.Generator) -> Tensor:
    """Return each image turned, scaled and moved by its own amounts, border repeated; x is (B, C, H, W)."""
    angle, scale, right, down = torch.empty(4, len(x), device=x.device).uniform_(-1, 1, generator=generator)
    angle, scale = angle * math.radians(warp.degrees), 1 + warp.scale * scale
    cos, sin = angle.cos() / scale, angle.sin() / scale
    move = 2 * warp.shift * torch.stack([right / x.shape[3], down / x.shape[2]], dim=1)
    theta = torch.cat([torch.stack([cos, -sin, sin, cos], dim=1).view(-1, 2, 2), move.unsqueeze(-1)], dim=2)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def optimizer_of(classifier: Classifier, config: TrainConfig) -> torch.optim.Optimizer:
    """Return AdamW, or Nesterov's gradient descent; `faster` of a group multiplies its learning rate."""
    norms = [m for m in classifier.modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)]
    biases = {m.bias for m in norms}
    others = [p for p in classifier.parameters() if p.requires_grad and p not in biases]
    decay, faster = config.weight_decay, config.bias_lr
    groups: list[dict[str, Any]] = [
        {"params": others, "faster": 1.0, "weight_decay": decay},
        {"params": [m.bias for m in norms], "faster": faster, "weight_decay": decay / faster},
    ]
    if config.momentum:
        return torch.optim.SGD(groups, config.lr, config.momentum, nesterov=True)
    return torch.optim.AdamW(groups)


class Batches:
    """The augmented images of each step, and their classes.

    Raises:
        ValueError: there are too few images.
    """

    def __init__(self, config: TrainConfig, dataset: ImageSet, device: torch.device) -> None:
        self.config, self.device = config, device
        self.x, self.y = dataset.x.to(device), dataset.y.to(device)
        self.per_epoch = min(len(dataset) // config.batch_size, config.max_batches_per_epoch or len(dataset))
        if self.per_epoch < 1:
            raise ValueError(f"batch_size {config.batch_size} is more than the {len(dataset)} images")
        self.total = config.epochs * self.per_epoch  # steps

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return x (B, C, H, W) in [-1, 1] and y (B,) of a step."""
        config = self.config
        picked = batch_indices(len(self.x), config.batch_size, self.per_epoch, config.seed, step)
        picked = picked.to(self.device)
        rng = generator(config.seed, step, self.device)
        x = augmented(normalise(self.x[picked]), config.augment, rng)
        return (x if config.warp == WarpConfig() else warped(x, config.warp, rng)), self.y[picked]


def model_config(config: TrainConfig, dataset: ImageSet) -> ClassifierConfig:
    """Return what it takes to build this classifier again."""
    return ClassifierConfig(
        family="classifier",
        shape=dataset.shape,
        classes=dataset.classes,
        net=asdict(config.net),
        judge=config.judge,
    )


class EpochRecorder:
    """Measures the averaged weights after each epoch, and writes metrics and a checkpoint; shows a bar.

    Args:
        start: the steps done before.
    """

    def __init__(
        self, config: TrainConfig, checkpoint: Checkpoint, batches: Batches, held_out: ImageSet, start: int
    ) -> None:
        self.config, self.checkpoint, self.batches, self.held_out = config, checkpoint, batches, held_out
        self.autocast = precision_of(config.precision, batches.device)
        self.bar = tqdm(total=batches.total, initial=start, unit="step", dynamic_ncols=True)
        self.clock, self.losses = time.perf_counter(), torch.zeros((), device=batches.device)

    def count(self, loss: Tensor) -> None:
        """Count a step as done; its loss is a scalar."""
        self.losses += loss.detach()
        self.bar.update()

    def end_epoch(
        self, step: int, classifier: Classifier, ema: Classifier, optimizer: torch.optim.Optimizer
    ) -> None:
        """Give the averaged weights statistics of their own, measure and save them.

        Raises:
            FloatingPointError: the mean loss of the epoch is not finite.
            OSError: a file cannot be written.
        """
        config, batches, done = self.config, self.batches, step + 1
        mean_loss = self.losses.item() / batches.per_epoch
        if not math.isfinite(mean_loss):
            raise FloatingPointError(f"loss {mean_loss} at step {done}: try --lr below {config.lr}")
        # BatchNorm's means and variances of the latest weights do not suit the averaged ones
        update_bn((batches(step - k)[0] for k in range(min(STATISTICS, batches.per_epoch))), ema)
        with self.autocast():
            logits = ema.logits(features_of(ema, self.held_out.x).to(batches.device))
        accuracy = metrics.accuracy(logits.cpu(), self.held_out.y)
        speed = batches.per_epoch * config.batch_size / (time.perf_counter() - self.clock)
        self.clock, self.losses = time.perf_counter(), torch.zeros_like(self.losses)
        self.checkpoint.record(done, loss=mean_loss, test_accuracy=accuracy, images_per_s=round(speed, 1))
        self.checkpoint.save(done, classifier, ema, optimizer)
        self.bar.set_postfix_str(f"loss {mean_loss:.4f}, test accuracy {accuracy:.4f}")


# ---- the loop ----------------------------------------------------------------------------------------------


def main(config: TrainConfig) -> None:
    """Train, from the start or from the last epoch done."""
    if config.threads:
        torch.set_num_threads(config.threads)
    device = join_ranks(config.device).device
    with held(Path(config.output) / config.name):
        fit(config, device)


def fit(config: TrainConfig, device: torch.device) -> None:
    """Train, and write the moments of the features; raises FloatingPointError if the run diverges."""
    dataset, held_out = load_images(config.data, "train"), load_images(config.data, "test")
    batches, model = Batches(config, dataset, device), model_config(config, dataset)
    torch.manual_seed(config.seed)  # of the initial weights
    classifier = placed(model.build(), device)
    if isinstance(stem := classifier.body[0], Whitening):
        stem.learn(normalise(batches.x[:5000]))
    ema, optimizer = averaged(classifier), optimizer_of(classifier, config)
    checkpoint = Checkpoint(config, model, {"data": dataset, "held_out": held_out}, first=True)
    start: int = checkpoint.resume(classifier, ema, optimizer, batches.total).get("step", 0)
    parameters = sum(p.numel() for p in classifier.parameters()) / 1e6
    tqdm.write(f"{checkpoint.directory}: {len(dataset)} images {model.shape}, {parameters:.2f} M parameters")
    recorder = EpochRecorder(config, checkpoint, batches, held_out, start)
    autocast = precision_of(config.precision, device)

    for step in range(start, batches.total):
        set_learning_rate(optimizer, learning_rate(step, batches.total, config.warmup, config.lr))
        x, y = batches(step)
        with autocast():
            loss = F.cross_entropy(classifier(x).float(), y, label_smoothing=config.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        update_ema(ema, classifier, config.ema_decay, step)
        recorder.count(loss)
        if (step + 1) % batches.per_epoch == 0:
            recorder.end_epoch(step, classifier, ema, optimizer)
    recorder.bar.close()
    train, test = (features_of(ema, images.x) for images in (dataset, held_out))
    write_stats(checkpoint.directory, train, test, dataset.y, len(dataset.classes))


if __name__ == "__main__":
    configure(main, TrainConfig, __doc__.split("\n\n")[0], sys.argv[1:])
