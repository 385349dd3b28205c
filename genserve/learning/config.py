"""The settings of a training run, and what they may be."""

import math
from dataclasses import dataclass, field
from typing import Any

from genserve.data.batches import AugmentConfig
from genserve.data.pictures import DataConfig
from genserve.learning.ranks import Ranks


def check(config: Any) -> None:
    """Check the settings that training programs share, as far as this one has them.

    Raises:
        ValueError: one is out of its range; the message names it and says what is allowed.
    """
    if not config.name.strip():
        raise ValueError("name must not be empty: the run is written to OUTPUT/NAME")
    for name, allowed in (("precision", ("auto", "bf16", "fp32")), ("device", ("auto", "cpu", "cuda"))):
        if getattr(config, name, "auto") not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(config, name)!r}")
    for name in ("epochs", "batch_size", "lr", "max_batches_per_epoch"):
        value = getattr(config, name, None)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} must be above 0, got {value}")
    for name in ("warmup", "threads", "seed"):
        if getattr(config, name, 0) < 0:
            raise ValueError(f"{name} must be at least 0, got {getattr(config, name)}")
    if not 0 <= getattr(config, "ema_decay", 0) < 1:
        raise ValueError(f"ema_decay must be in [0, 1), got {config.ema_decay}")


def check_levels(sigma_min: float, sigma_max: float) -> None:
    """Raise ValueError unless these are the last and the first of several noise levels."""
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(
            f"sigma_min must be above 0 and below sigma_max, got {sigma_min:g} and {sigma_max:g}"
        )


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """The settings of every training run of a generator; saved in config.json beside the weights.

    Args:
        name: the run is written to OUTPUT/NAME.
        output: where run directories are.
        start_from: run directory of a model like this one: begin a new run with its weights.
        data: the images.
        augment: augmentation.
        epochs: passes over the data.
        max_batches_per_epoch: cut each pass short.
        batch_size: images per step, summed over ranks.
        lr: peak learning rate of AdamW.
        warmup: steps of linear rise; a cosine to 0 follows.
        betas, weight_decay: of AdamW.
        grad_clip: largest norm of the gradient; a longer one is shortened to it.
        ema_decay: per step, of the averaged weights, which are kept.
        precision: auto (bf16 where the hardware has it), bf16 or fp32.
        seed: of everything random.
        sample_every, checkpoint_every: steps between sample grids and between checkpoints.
        tensorboard: also write TensorBoard files.
        device: auto, cpu or cuda.
        threads: CPU threads per process; 0 is torch's own choice.
    """

    name: str
    output: str = "runs"
    start_from: str | None = None
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    epochs: int = 10
    max_batches_per_epoch: int | None = None
    batch_size: int = 128
    lr: float = 1e-3
    warmup: int = 100
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    grad_clip: float = 1.0
    ema_decay: float = 0.9995
    precision: str = "auto"
    seed: int = 0
    sample_every: int = 1000
    checkpoint_every: int = 500
    tensorboard: bool = False
    device: str = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        check(self)
        for name in ("sample_every", "checkpoint_every", "grad_clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")

    def batches(self, n_images: int, ranks: Ranks) -> int:
        """Return the number of batches per epoch.

        Raises:
            ValueError: there are too few images, or the ranks cannot share a batch.
        """
        if self.batch_size % ranks.size:
            raise ValueError(f"batch_size {self.batch_size} must be a multiple of the {ranks.size} ranks")
        per_epoch = min(n_images // self.batch_size, self.max_batches_per_epoch or n_images)
        if per_epoch < 1:
            raise ValueError(f"batch_size {self.batch_size} is more than the {n_images} images")
        return per_epoch


@dataclass(frozen=True, kw_only=True)
class DenoiserConfig(GeneratorConfig):
    """The settings of a run that learns at many noise levels.

    Args:
        label_dropout: share of images shown without their class, for guidance and unconditional samples.
        p_mean, p_std: the noise levels of training are ln sigma ~ N(p_mean, p_std**2).
    """

    label_dropout: float = 0.1
    p_mean: float = -1.2
    p_std: float = 1.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.p_std <= 0:
            raise ValueError(f"p_std must be above 0, got {self.p_std}")
        if not 0 <= self.label_dropout < 1:
            raise ValueError(f"label_dropout must be in [0, 1), got {self.label_dropout}")
