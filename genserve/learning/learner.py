"""A generator on its way to its weights: what its run is told, one step of descent, what is written when.

The loop itself stays in training/train_*.py, in plain sight.
"""

import copy
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from genserve.data.pictures import ImageSet
from genserve.files import write_atomic
from genserve.learning.checkpoint import Checkpoint, held
from genserve.learning.config import GeneratorConfig
from genserve.learning.identity import require_same
from genserve.learning.optim import learning_rate, update_ema
from genserve.learning.ranks import Ranks, join_ranks, leave_ranks
from genserve.models.config import ModelConfig
from genserve.runs.directory import load_denoiser

LINE_EVERY = 50  # steps between lines of metrics


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
        ranks: Ranks,
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

    def introduce(self, dataset: ImageSet) -> None:
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
        lr = learning_rate(step, self.total, config.warmup, config.lr)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.grad_clip)
        mean_loss = self.ranks.mean(loss.detach())
        if not torch.isfinite(norm) or not math.isfinite(mean_loss):
            raise self.diverged(step, f"loss {mean_loss} and gradient norm {norm.item()}")
        self.optimizer.step()
        update_ema(self.ema, self.model, config.ema_decay, step)
        return {"loss": mean_loss, "lr": lr, "grad_norm": norm.item()}

    def diverged(self, step: int, what: str) -> FloatingPointError:
        """Return the error that ends a run which learns nothing any more."""
        lr = learning_rate(step, self.total, self.config.warmup, self.config.lr)
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
            write_atomic(self.checkpoint.directory / "samples.png", picture())


def launch(fit: Callable[[Config, Ranks], None], config: Config) -> None:
    """Fit on the ranks there are, with the run directory kept to them.

    A rank that fails ends at once: the others wait for it somewhere else, and torchrun ends them.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    ranks = join_ranks(config.device)
    with held(Path(config.output) / config.name) if ranks.first else nullcontext():
        fit(config, ranks)
    leave_ranks()


def taught_by(directory: Path, model: ModelConfig) -> nn.Module:
    """Return the denoiser of a run whose images and network are those of `model`.

    Raises:
        ValueError: it is another network or knows other images.
    """
    require_same("teacher", directory, model, ("shape", "classes", "mean", "std", "net"))
    return load_denoiser(directory)
