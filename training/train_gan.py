"""Train a class-conditional GAN: real images in, the run directory of its generator out.

    python training/train_gan.py --config training/configs/gan-mnist.yaml
    python training/train_gan.py --config ... --epochs 1 --max-batches-per-epoch 100     # a quick look

The loss is the non-saturating logistic one, with a penalty on the discriminator's gradient at real images
(R1), every few steps. Kept are the averaged weights of the generator, with BatchNorm statistics of their own.

Run it again after a kill and it goes on from the last checkpoint, to the weights an unbroken run ends with.
docs/training.md says what may change then.
"""

import math
import sys
from dataclasses import asdict, dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from genserve.cli import configure
from genserve.data.pictures import ImageSet, load_images
from genserve.learning.checkpoint import Checkpoint
from genserve.learning.config import GeneratorConfig
from genserve.learning.feed import Feed
from genserve.learning.optim import (
    averaged,
    diverged,
    generator,
    learning_rate,
    placed,
    precision_of,
    set_learning_rate,
    update_ema,
)
from genserve.learning.previews import one_step_grid
from genserve.learning.ranks import Ranks, launch
from genserve.learning.recorder import Recorder
from genserve.models.gan import Discriminator, GanConfig, Generator, r1_penalty, settle

STATISTICS = (10, 500)  # batches, and images in each, from which BatchNorm's means and variances are made


@dataclass(frozen=True, kw_only=True)
class NetConfig:
    """The generator (genserve/models/gan.py).

    Args:
        z_dim: of the noise, and of the embedding of a class.
        channels: at a quarter and at half of the resolution.
    """

    z_dim: int = 64
    channels: tuple[int, int] = (128, 64)


@dataclass(frozen=True, kw_only=True)
class CriticConfig:
    """The discriminator.

    Args:
        channels: at half of the resolution, and below.
        hidden: width of the layer before the last.
        group: images whose spread it sees.
    """

    channels: tuple[int, int] = (64, 128)
    hidden: int = 256
    group: int = 16


@dataclass(frozen=True, kw_only=True)
class TrainConfig(GeneratorConfig):
    """One training run; saved in config.json beside the weights.

    Args:
        net: the generator.
        critic: the discriminator, which is not kept.
        conditional: learn the data's classes.
        start_from: not possible: a run directory keeps no discriminator.
        batch_size: images per step, a multiple of critic.group; as many are drawn.
        betas, weight_decay, grad_clip: of both networks.
        r1: gamma, weight of the penalty on the discriminator's gradient.
        r1_every: steps from one penalty to the next; it then counts this many times.
    """

    name: str = "gan"
    net: NetConfig = field(default_factory=NetConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    conditional: bool = True
    batch_size: int = 64
    betas: tuple[float, float] = (0.0, 0.99)
    grad_clip: float = 100.0
    ema_decay: float = 0.999
    r1: float = 1.0
    r1_every: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start_from is not None:
            raise ValueError("start_from is not possible for a GAN: a run directory keeps no discriminator")
        for name, value in (("r1_every", self.r1_every), ("critic.group", self.critic.group)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.batch_size % self.critic.group:
            raise ValueError(
                f"batch_size must be a multiple of critic.group {self.critic.group}, got {self.batch_size}"
            )
        if not 0 <= self.r1 < math.inf:
            raise ValueError(f"r1 must be at least 0, got {self.r1}")


def model_config(config: TrainConfig, dataset: ImageSet) -> GanConfig:
    """Return what it takes to build this generator again."""
    classes = dataset.classes if config.conditional else ()
    return GanConfig(family="gan", shape=dataset.shape, classes=classes, net=asdict(config.net))


class Game(nn.Module):
    """Both players, with one optimiser: it moves only those whose gradient is there.

    Args:
        n_classes: 0 for a model without classes.
    """

    def __init__(self, config: TrainConfig, model: GanConfig, device: torch.device) -> None:
        super().__init__()
        self.config, self.n_classes = config, len(model.classes)
        self.generator: Generator = placed(model.build(), device)
        critic = Discriminator(model.shape, self.n_classes, **asdict(config.critic))
        self.discriminator = placed(critic, device)
        self.optimizer = torch.optim.AdamW(
            self.parameters(), betas=config.betas, weight_decay=config.weight_decay, fused=True
        )
        self.autocast = precision_of(config.precision, device)

    def _move(self, player: nn.Module, loss: Tensor) -> float:
        """Take one step of a player down its loss; return the length of its gradient."""
        loss.backward()
        norm = clip_grad_norm_(player.parameters(), self.config.grad_clip).item()
        if math.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def step(self, step: int, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, float]:
        """Move the discriminator, then the generator; return what to record.

        Args:
            x: (B, C, H, W), real images in [-1, 1];  y: (B,), their classes, which the drawn ones have, too.
        """
        config = self.config
        z = torch.randn(len(x), self.generator.z_dim, generator=rng, device=x.device)
        with self.autocast():
            drawn = self.generator(z, y).float()
            logits = self.discriminator(torch.cat([x, drawn.detach()]), torch.cat([y, y])).float()
        real, fake = logits.chunk(2)
        loss = F.softplus(-real).mean() + F.softplus(fake).mean()
        values = {"loss": loss.item(), "logit_real": real.mean().item(), "logit_fake": fake.mean().item()}
        if config.r1 and step % config.r1_every == 0:
            penalty = r1_penalty(self.discriminator, x, y).mean()  # in float32: a gradient of a gradient
            loss = loss + config.r1 / 2 * config.r1_every * penalty
        values["grad_norm"] = self._move(self.discriminator, loss)
        self.discriminator.requires_grad_(False)
        with self.autocast():
            fooled = F.softplus(-self.discriminator(drawn, y).float()).mean()
        values["loss_generator"] = fooled.item()
        values["grad_norm_generator"] = self._move(self.generator, fooled)
        self.discriminator.requires_grad_(True)
        return values


def main(config: TrainConfig) -> None:
    """Train, from the start or from the last checkpoint."""
    launch(fit, config)


def fit(config: TrainConfig, ranks: Ranks) -> None:
    """Train; raises FloatingPointError if the run diverges, ValueError on several ranks."""
    if ranks.size > 1:
        raise ValueError(
            "a GAN is trained by one process: BatchNorm sees the batch; start it without torchrun"
        )
    dataset = load_images(config.data, "train")
    feed = Feed(dataset, config, ranks)
    model = model_config(config, dataset)
    torch.manual_seed(config.seed)  # of the initial weights
    game = Game(config, model, ranks.device)
    ema = averaged(game.generator)
    checkpoint = Checkpoint(config, model, {"data": dataset}, first=ranks.first)
    recorder = Recorder(config, checkpoint, feed, game, ema, game.optimizer)

    for step in range(recorder.start, feed.total):
        lr = learning_rate(step, feed.total, config.warmup, config.lr)
        set_learning_rate(game.optimizer, lr)
        x, y, rng = feed.images(step)
        values = game.step(step, x, y if model.classes else torch.zeros_like(y), rng)
        if not all(map(math.isfinite, values.values())):
            raise diverged(config, step, feed.total, f"losses and gradient norms {values}")
        update_ema(ema, game.generator, config.ema_decay, step)
        if recorder.saves(step) or recorder.draws(step):
            settle(ema, len(model.classes), generator(config.seed, step, ranks.device), *STATISTICS)
        recorder.record(step, values | {"lr": lr}, lambda: one_step_grid(ema, model))
    recorder.close()


if __name__ == "__main__":
    configure(main, TrainConfig, __doc__.split("\n\n")[0], sys.argv[1:])
