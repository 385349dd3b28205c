"""Go on from the last checkpoint, and write metrics, checkpoints and pictures of a run when they are due."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from genserve.files import write_atomic
from genserve.learning.checkpoint import Checkpoint
from genserve.learning.config import GeneratorConfig
from genserve.learning.feed import Feed

LINE_EVERY = 50  # steps between lines of metrics


class Recorder:
    """Writes metrics, checkpoints and pictures of a run when they are due, and shows a bar of its steps.

    It begins by loading the last checkpoint, if there is one.

    Args:
        config: of the program.
        checkpoint: of the run.
        feed: the batches; its first rank writes.
        network, ema, optimizer: what each checkpoint holds.

    Attributes:
        state: what the last checkpoint holds besides them, as from `Checkpoint.resume`; empty for a new run.
        start: the steps done before.

    Raises:
        ValueError, OSError: as `Checkpoint.resume`.
    """

    def __init__(
        self,
        config: GeneratorConfig,
        checkpoint: Checkpoint,
        feed: Feed,
        network: nn.Module,
        ema: nn.Module,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        from tqdm import tqdm

        self.state: dict[str, Any] = checkpoint.resume(network, ema, optimizer, feed.total)
        self.start: int = self.state.get("step", 0)
        self._config, self._checkpoint, self._first = config, checkpoint, feed.ranks.first
        self._network, self._ema, self._optimizer = network, ema, optimizer
        self._more: dict[str, Tensor] = {}
        self._total, self._logged, self._clock = feed.total, self.start, time.perf_counter()
        self._bar = tqdm(
            total=feed.total, initial=self.start, disable=not self._first, unit="step", dynamic_ncols=True
        )
        if self._first:
            parameters = sum(p.numel() for p in network.parameters()) / 1e6
            self._bar.write(
                f"{checkpoint.directory}: {len(feed.x)} images {tuple(feed.x.shape[1:])}, "
                f"{parameters:.2f} M parameters, {feed.total} steps"
            )

    def include(self, more: Mapping[str, Tensor]) -> None:
        """Put these tensors into every checkpoint too, and fill them, in place, from the last one."""
        for name, value in more.items():
            value.copy_(self.state.get(name, value))
        self._more |= more

    def due(self, step: int) -> bool:
        """Return whether `record` writes a line of metrics after this step: only then compute slow ones."""
        return (step + 1) % LINE_EVERY == 0 or step + 1 == self._total

    def saves(self, step: int) -> bool:
        """Return whether `record` writes a checkpoint after this step."""
        return (step + 1) % self._config.checkpoint_every == 0 or step + 1 == self._total

    def draws(self, step: int) -> bool:
        """Return whether `record` writes a picture after this step."""
        return (step + 1) % self._config.sample_every == 0 or step + 1 == self._total

    def record(
        self,
        step: int,
        values: Mapping[str, float],
        picture: Callable[[], bytes],
        measured: Mapping[str, float] | None = None,
        kept: dict[str, Tensor] | None = None,
    ) -> None:
        """Count a step as done; write the line of metrics, the checkpoint and the picture that are due.

        Args:
            step: the number of the step, from 0.
            values: of the line of metrics, `loss` among them.
            picture: returns a PNG of samples.
            measured: more metrics, which are written even if no line is due.
            kept: the weights that the run leaves, if they are not those of the EMA.

        Raises:
            OSError: a file cannot be written.
        """
        done, config = step + 1, self._config
        self._bar.update()
        if self.due(step):
            speed = (done - self._logged) * config.batch_size / (time.perf_counter() - self._clock)
            line = {**values, **(measured or {}), "images": done * config.batch_size}
            self._checkpoint.record(done, **line, images_per_s=round(speed, 1))
            self._bar.set_postfix_str(f"loss {values['loss']:.3f}, {speed:.0f} images/s")
            self._clock, self._logged = time.perf_counter(), done
        elif measured:
            self._checkpoint.record(done, **measured)
        # first the checkpoint: a picture that cannot be drawn must not cost the steps before it
        if self.saves(step):
            self._checkpoint.save(done, self._network, self._ema, self._optimizer, kept, **self._more)
        if self._first and self.draws(step):
            write_atomic(self._checkpoint.directory / "samples.png", picture())

    def close(self) -> None:
        """End the bar."""
        self._bar.close()
