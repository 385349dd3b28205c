"""A generator on its way to its weights: what its run is told, one step of descent, what is written when.

The loop itself stays in training/train_*.py, in plain sight.
"""

import copy
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from genserve.data import pictures as data
from genserve.data.pictures import AugmentConfig, DataConfig
from genserve.learning import ranks as train
from genserve.learning.checkpoint import Checkpoint, held
from genserve.learning.identity import require_same
from genserve.runs import directory as run
from genserve.sampling.samplers import training_sigmas

LINE_EVERY = 50  # steps between lines of metrics


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """What every training run of a generator is told; saved in config.json beside the weights.

    Args:
        name: the run is written to OUTPUT/NAME.
        output: where run directories are.
        start_from: run directory of a model like this one: begin a new run with its weights.
        data: the images.
        augment: augmentation.
        epochs: passes over the data.
        max_batches_per_epoch: cut each pass short.
        batch_size: images a step, summed over ranks.
        lr: peak learning rate of AdamW.
        warmup: steps of linear rise; a cosine to 0 follows.
        betas, weight_decay: of AdamW.
        grad_clip: largest norm of the gradient.
        ema_decay: of the weights that are kept, a step.
        precision: auto (bf16 where the hardware has it), bf16 or fp32.
        seed: of everything random.
        sample_every, checkpoint_every: steps between sample grids and between checkpoints.
        tensorboard: also write TensorBoard files.
        device: auto, cpu or cuda.
        threads: CPU threads a process; 0 is torch's own choice.
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
        train.check(self)
        for name in ("sample_every", "checkpoint_every", "grad_clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")

    def batches(self, n_images: int, ranks: train.Ranks) -> int:
        """Return how many batches an epoch has.

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
    """What a run that learns at many noise levels is told besides.

    Args:
        label_dropout: share of images shown without their class, for guidance and unconditional samples.
        p_mean, p_std: ln sigma ~ N(p_mean, p_std**2) are the noise levels of training.
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


class Noised(NamedTuple):
    """What a denoiser learns from in a step."""

    x_0: Tensor  # (B, C, H, W), data in [-1, 1]
    sigma: Tensor  # (B,)
    y: Tensor  # (B,) int64; the number of classes where the class is hidden
    eps: Tensor  # like x_0, standard normal


class Feed:
    """What each step learns from. Every rank draws the whole batch, so that their number changes nothing."""

    def __init__(self, dataset: data.ImageSet, config: GeneratorConfig, ranks: train.Ranks) -> None:
        if dataset.x.min() == dataset.x.max():
            raise ValueError("all pixels of all images are equal: there is nothing to learn")
        self.config, self.ranks = config, ranks
        self.x, self.y = dataset.x.to(ranks.device), dataset.y.to(ranks.device)
        self.per_epoch = config.batches(len(dataset), ranks)
        self.total = config.epochs * self.per_epoch  # steps

    def images(self, step: int) -> tuple[Tensor, Tensor, torch.Generator]:
        """Return the whole batch's x_0 and y, and what the rest is drawn from."""
        config, device = self.config, self.ranks.device
        rng = train.generator(config.seed, step, device)
        picked = data.batch_indices(len(self.x), config.batch_size, self.per_epoch, config.seed, step)
        picked = picked.to(device)
        return data.augmented(data.normalise(self.x[picked]), config.augment, rng), self.y[picked], rng

    def noised(self, step: int, config: DenoiserConfig, no_class: int) -> tuple[Noised, torch.Generator]:
        """Return the whole batch at its noise levels; no_class is the number of classes, 0 for none."""
        x_0, y, rng = self.images(step)
        eps = torch.randn(x_0.shape, generator=rng, device=x_0.device)
        u = torch.rand(len(x_0), generator=rng, device=x_0.device)
        sigma = training_sigmas(u, config.p_mean, config.p_std)
        hidden = torch.rand(len(x_0), generator=rng, device=x_0.device) < config.label_dropout
        y = torch.where(hidden, no_class, y) if no_class else torch.zeros_like(y)
        return Noised(x_0, sigma, y, eps), rng


Config = TypeVar("Config", bound=GeneratorConfig)


class Learner:
    """A network on its way: the weights that learn, their EMA, the optimiser, and what is written of them.

    Args:
        model: freshly built.
        checkpoint: where an earlier part of the run may be; it is taken up from there.
        total: steps of the whole run.
    """

    def __init__(
        self,
        model: nn.Module,
        config: GeneratorConfig,
        checkpoint: Checkpoint,
        ranks: train.Ranks,
        total: int,
    ) -> None:
        from tqdm import tqdm

        self.config, self.checkpoint, self.ranks, self.total = config, checkpoint, ranks, total
        self.model: nn.Module = model.to(ranks.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), betas=config.betas, weight_decay=config.weight_decay
        )
        self.state = checkpoint.resume(self.model, self.ema, self.optimizer, total)
        self.start: int = self.state.get("step", 0)
        self.bar = tqdm(
            total=total, initial=self.start, disable=not ranks.first, unit="step", dynamic_ncols=True
        )
        self._clock, self._logged = time.perf_counter(), self.start

    def introduce(self, dataset: data.ImageSet) -> None:
        """Say what is about to learn what, above the bar."""
        parameters = sum(p.numel() for p in self.model.parameters()) / 1e6
        if self.ranks.first:
            self.bar.write(
                f"{self.checkpoint.directory}: {len(dataset)} images {dataset.shape}, "
                f"{parameters:.2f} M parameters, {self.total} steps"
            )

    def step(self, step: int, loss: Tensor) -> dict[str, float]:
        """Descend; return the loss, the learning rate and the norm of the gradient.

        Raises:
            FloatingPointError: loss or gradient are not finite.
        """
        config = self.config
        lr = train.learning_rate(step, self.total, config.warmup, config.lr)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.grad_clip)
        mean_loss = self.ranks.mean(loss.detach())
        if not torch.isfinite(norm) or not math.isfinite(mean_loss):
            raise self.diverged(step, f"loss {mean_loss} and gradient norm {norm.item()}")
        self.optimizer.step()
        train.update_ema(self.ema, self.model, config.ema_decay, step)
        return {"loss": mean_loss, "lr": lr, "grad_norm": norm.item()}

    def diverged(self, step: int, what: str) -> FloatingPointError:
        """Return the error that ends a run which learns nothing any more."""
        lr = train.learning_rate(step, self.total, self.config.warmup, self.config.lr)
        return FloatingPointError(
            f"{what} at step {step}, lr {lr:.2g}; a checkpoint in {self.checkpoint.directory} is from "
            f"before. Try a lower --lr or --precision fp32. {self.config}"
        )

    def looks(self, step: int) -> bool:
        """Return whether a line of metrics is due after this step, and what takes time to find out for it."""
        return (step + 1) % LINE_EVERY == 0 or step + 1 == self.total

    def record(
        self,
        step: int,
        values: dict[str, float],
        picture: Callable[[], bytes],
        kept: dict[str, Tensor] | None = None,
        **more: Tensor,
    ) -> None:
        """Show that a step is done; write the line of metrics, the picture and the checkpoint that are due.

        Args:
            values: of the line of metrics; `loss` among them.
            picture: returns a PNG of samples.
            kept: the weights that the run is to leave, where they are not those of the EMA.
            more: what a resumed run needs beside weights and optimiser.
        """
        done, config = step + 1, self.config
        self.bar.update()
        if self.looks(step):
            seen = done * config.batch_size
            speed = (done - self._logged) * config.batch_size / (time.perf_counter() - self._clock)
            self.checkpoint.record(done, **values, images=seen, images_per_s=round(speed, 1))
            self.bar.set_postfix_str(f"loss {values['loss']:.3f}, {speed:.0f} images/s")
            self._clock, self._logged = time.perf_counter(), done
        # first the checkpoint: a picture that cannot be drawn must not cost the steps before it
        if done % config.checkpoint_every == 0 or done == self.total:
            self.checkpoint.save(done, self.model, self.ema, self.optimizer, kept, **more)
        if self.ranks.first and (done % config.sample_every == 0 or done == self.total):
            run.write_atomic(self.checkpoint.directory / "samples.png", picture())


def launch(fit: Callable[[Config, train.Ranks], None], config: Config) -> None:
    """Fit on the ranks there are, with the run directory kept to them.

    A rank that fails ends at once: the others wait for it somewhere else, and torchrun ends them.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    ranks = train.join_ranks(config.device)
    with held(Path(config.output) / config.name) if ranks.first else nullcontext():
        fit(config, ranks)
    train.leave_ranks()


def taught_by(directory: Path, model: run.ModelConfig) -> nn.Module:
    """Return the denoiser of a run whose images and network are those of `model`.

    Raises:
        ValueError: it is another network or knows other images.
    """
    require_same("teacher", directory, model, ("shape", "classes", "mean", "std", "net"))
    return run.load_denoiser(directory)
