"""Read the settings of training/train_classifier.py, make its batches and its optimiser."""

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from genserve.data.batches import (
    AugmentConfig,
    WarpConfig,
    augmented,
    batch_indices,
    flipped_in_turn,
    warped,
)
from genserve.data.pictures import DataConfig, ImageSet
from genserve.images import normalise
from genserve.learning.config import check
from genserve.learning.optim import generator, learning_rate, triangular_rate
from genserve.models.classifier import Classifier, ClassifierConfig
from genserve.models.labels import Airbench, LabelsConfig

Network = Classifier | Airbench


@dataclass(frozen=True, kw_only=True)
class NetConfig:
    """The classifier (genserve/models/classifier.py, or labels.py).

    Args:
        blocks: residual, or pooled: slower, and better for photographs; or airbench: to be served, right more
            often, of which only `channels` is a choice.
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
        flip_in_turn: mirror each image in every other epoch.
        warp: turning, scaling and moving by parts of a pixel.
        hold_out: this many training images are kept from training, and measured in place of the test images.
        epochs: passes over the data.
        max_batches_per_epoch: cut each pass short.
        batch_size: images per step.
        lr: peak learning rate.
        bias_lr: the biases of norms learn this many times faster.
        schedule: cosine to 0, after a warmup; or triangle, which needs none.
        warmup: steps of linear rise before the cosine.
        whitening_epochs: the bias of an airbench stem learns for this long.
        momentum: of gradient descent with Nesterov's momentum; 0 takes AdamW instead.
        weight_decay: lr times this share of a weight is taken away per step.
        label_smoothing: share of the target that goes to all classes alike.
        average: of the weights, which is kept: ema, beside the run; or lookahead, from which the run goes on.
        ema_decay: per step, of the EMA.
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
    flip_in_turn: bool = False
    warp: WarpConfig = field(default_factory=WarpConfig)
    hold_out: int = 0
    epochs: int = 20
    max_batches_per_epoch: int | None = None
    batch_size: int = 128
    lr: float = 2e-3
    bias_lr: float = 1.0
    schedule: str = "cosine"
    warmup: int = 100
    whitening_epochs: int = 3
    momentum: float = 0.0
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    average: str = "ema"
    ema_decay: float = 0.999
    precision: str = "auto"
    seed: int = 0
    tensorboard: bool = False
    device: str = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        check(self)
        for name, allowed in (("schedule", ("cosine", "triangle")), ("average", ("ema", "lookahead"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be {' or '.join(allowed)}, got {getattr(self, name)!r}")
        for name in ("hold_out", "whitening_epochs"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")


def optimizer_of(classifier: Network, config: TrainConfig) -> torch.optim.Optimizer:
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


def rate_of(config: TrainConfig, step: int, total: int) -> float:
    """Return the learning rate of a step."""
    if config.schedule == "triangle":
        return triangular_rate(step, total, config.lr)
    return learning_rate(step, total, config.warmup, config.lr)


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
        rng = generator(config.seed, -1 % 2**32, device)
        self.flip_first = torch.rand(len(dataset), generator=rng, device=device) < 0.5

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return x (B, C, H, W) in [-1, 1] and y (B,) of a step."""
        config = self.config
        picked = batch_indices(len(self.x), config.batch_size, self.per_epoch, config.seed, step)
        picked = picked.to(self.device)
        rng = generator(config.seed, step, self.device)
        x = normalise(self.x[picked])
        if config.flip_in_turn:
            x = flipped_in_turn(x, self.flip_first[picked], step // self.per_epoch)
        x = augmented(x, config.augment, rng)
        return (x if config.warp == WarpConfig() else warped(x, config.warp, rng)), self.y[picked]


def model_config(config: TrainConfig, dataset: ImageSet) -> ClassifierConfig | LabelsConfig:
    """Return what it takes to build this classifier again."""
    parts: dict[str, Any] = {"shape": dataset.shape, "classes": dataset.classes}
    if config.net.blocks == "airbench":
        mirror = config.augment.flip or config.flip_in_turn
        return LabelsConfig(family="labels", channels=config.net.channels, mirror=mirror, **parts)
    return ClassifierConfig(family="classifier", net=asdict(config.net), judge=config.judge, **parts)


def logits_of(network: Network, x: Tensor) -> Tensor:
    """Return the logits of images x (B, C, H, W) in [-1, 1], (B, n_classes) float32, with gradients."""
    answer = network(x)
    logits: Tensor = answer if isinstance(network, Classifier) else answer[0]
    return logits.float()
