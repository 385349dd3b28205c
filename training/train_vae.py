"""Train a class-conditional variational autoencoder with a flow prior: real images in, a run directory out.

    python training/train_vae.py --config training/configs/vae-mnist.yaml
    python training/train_vae.py --config ... --epochs 2 --max-batches-per-epoch 100     # a quick look

All parts learn together from the evidence lower bound of 256 gray levels. In the last epochs the prior learns
alone, on the codes of all images: its steps are cheap, and the codes no longer move.

Run it again after a kill and it goes on from the last checkpoint, to the weights an unbroken run ends with.
docs/training.md says what may change then; --start-from begins a new run with the weights of another.
"""

import math
import sys
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from genserve.cli import configure
from genserve.data.pictures import ImageSet, load_images
from genserve.images import normalise
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
from genserve.measure.bound import AT_ONCE, bound_of
from genserve.models.flow import log_normal
from genserve.models.vae import VAE, VaeConfig, log_likelihood

KL_START = 0.1  # weight of the divergence in the first step
NO_STEP = 2**62  # no step of a run has this number, so its random numbers are free for the validation images


@dataclass(frozen=True, kw_only=True)
class NetConfig:
    """The autoencoder (genserve/models/vae.py).

    Args:
        z_dim: of the latent variable.
        channels: at half and at a quarter of the resolution.
        hidden: width of the layers next to the latent variable.
        couplings, coupling_hidden: depth of the prior's flow, and width of the networks in it.
    """

    z_dim: int = 64
    channels: tuple[int, int] = (64, 128)
    hidden: int = 256
    couplings: int = 8
    coupling_hidden: int = 256


@dataclass(frozen=True, kw_only=True)
class TrainConfig(GeneratorConfig):
    """One training run; saved in config.json beside the weights.

    Args:
        net: the network.
        conditional: learn the data's classes.
        prior_epochs: of the epochs, the last ones, in which the prior learns alone.
        prior_batch: codes per step then.
        prior_lr: peak learning rate then; half a cosine to 0.
        kl_warmup: steps in which the weight of the divergence rises from 0.1 to 1.
        validation: number of the last training images that are not learnt from; their bound is measured
            whenever a picture is drawn.
    """

    name: str = "vae"
    net: NetConfig = field(default_factory=NetConfig)
    conditional: bool = True
    batch_size: int = 64
    lr: float = 2e-3
    warmup: int = 200
    weight_decay: float = 1e-4
    grad_clip: float = 200.0
    ema_decay: float = 0.999
    prior_epochs: int = 2
    prior_batch: int = 512
    prior_lr: float = 1e-3
    kl_warmup: int = 2000
    validation: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.prior_epochs < self.epochs:
            raise ValueError(f"prior_epochs must be in 0 to epochs - 1, got {self.prior_epochs}")
        for name in ("prior_batch", "prior_lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("kl_warmup", "validation"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")


def model_config(config: TrainConfig, dataset: ImageSet) -> VaeConfig:
    """Return what it takes to build this autoencoder again."""
    classes = dataset.classes if config.conditional else ()
    return VaeConfig(family="vae", shape=dataset.shape, classes=classes, net=asdict(config.net))


def divided(dataset: ImageSet, n: int) -> tuple[ImageSet, ImageSet]:
    """Return the images to learn from, and the last n.

    Raises:
        ValueError: nothing is left to learn from.
    """
    if n >= len(dataset):
        raise ValueError(f"validation must be below the number of images {len(dataset)}, got {n}")
    cut = len(dataset) - n
    learnt, held_out = (
        ImageSet(dataset.x[part], dataset.y[part], dataset.classes) for part in (slice(cut), slice(cut, None))
    )
    return learnt, held_out


class Learning:
    """The two parts of a run: all of the autoencoder for its first steps, then the prior alone.

    Args:
        feed: the batches.

    Attributes:
        joint: the steps of the first part.
        vae, ema: the autoencoder and its average. In the second part only the prior of either moves.
    """

    def __init__(self, config: TrainConfig, model: VaeConfig, feed: Feed) -> None:
        device = feed.ranks.device
        self.config, self.feed, self.device = config, feed, device
        self.joint = feed.total - config.prior_epochs * feed.per_epoch
        self.vae: VAE = placed(model.build(), device)
        self.ema = averaged(self.vae)
        self.optimizer = torch.optim.AdamW(
            self.vae.parameters(), betas=config.betas, weight_decay=config.weight_decay, fused=True
        )
        self.autocast = precision_of(config.precision, device)
        self._codes: tuple[Tensor, Tensor] | None = None

    def bound(self, x: Tensor, y: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `VAE.bound` does, the two networks in the run's precision and the rest in float32."""
        one_hot = self.vae.one_hot(y)
        with self.autocast():
            mean, log_variance = self.vae.encoder(x, one_hot)
        z = self.vae.sampled(mean, log_variance, eps)
        with self.autocast():
            location, log_scale = self.vae.decoder(z, one_hot)
        return -log_likelihood(x, location, log_scale), self.vae.divergence(z, log_variance, eps, one_hot)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of a step of the first part, a scalar in nats, and what to record."""
        x, y, rng = self.feed.images(step)
        eps = torch.randn(len(x), self.vae.z_dim, generator=rng, device=self.device)
        nll, divergence = (part.mean() for part in self.bound(x, y, eps))
        weight = min(1.0, KL_START + (1 - KL_START) * step / max(1, self.config.kl_warmup))
        bits = (nll + divergence).item() / math.log(2) / x[0].numel()
        values = {"reconstruction": nll.item(), "kl": divergence.item(), "bits_per_dim": bits}
        return nll + weight * divergence, values

    def prior_loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of a step of the second part: -ln p(z | y) of codes of any images, in nats."""
        if self._codes is None:
            self._codes = self.encoded()
        mean, log_variance = self._codes
        rng = generator(self.config.seed, step, self.device)
        picked = torch.randint(len(mean), (self.config.prior_batch,), generator=rng, device=self.device)
        eps = torch.randn(len(picked), self.vae.z_dim, generator=rng, device=self.device)
        z = self.vae.sampled(mean[picked], log_variance[picked], eps)
        noise, log_det = self.vae.prior(z, self.vae.one_hot(self.feed.y[picked]))
        return -(log_normal(noise) + log_det).mean(), {}

    @torch.no_grad()
    def encoded(self) -> tuple[Tensor, Tensor]:
        """Return mean and ln variance of the codes of all training images, each (N, z_dim)."""
        parts = [
            self.ema.encoder(normalise(x), self.ema.one_hot(y))
            for x, y in zip(self.feed.x.split(AT_ONCE), self.feed.y.split(AT_ONCE), strict=True)
        ]
        means, log_variances = zip(*parts, strict=True)
        return torch.cat(means), torch.cat(log_variances)

    def step(self, step: int) -> dict[str, float]:
        """Take a step; return what to record, the loss and the length of the gradient among it."""
        config = self.config
        if step < self.joint:
            lr = learning_rate(step, self.joint, config.warmup, config.lr)
            loss, values = self.loss(step)
        else:
            if step == self.joint:
                self.vae.prior.load_state_dict(self.ema.prior.state_dict())
            lr = learning_rate(step - self.joint, self.feed.total - self.joint, 0, config.prior_lr)
            loss, values = self.prior_loss(step)
        set_learning_rate(self.optimizer, lr)
        self.optimizer.zero_grad(set_to_none=True)  # in the second part encoder and decoder get no gradient
        loss.backward()
        grad_norm = clip_grad_norm_(self.vae.parameters(), config.grad_clip).item()
        values = {"loss": loss.item(), **values, "lr": lr, "grad_norm": grad_norm}
        if not all(map(math.isfinite, values.values())):
            raise diverged(config, step, self.feed.total, f"loss and gradient norm {values}")
        self.optimizer.step()
        if step < self.joint:
            update_ema(self.ema, self.vae, config.ema_decay, step)
        else:
            update_ema(self.ema.prior, self.vae.prior, config.ema_decay, step - self.joint)
        return values

    def measured(self, held_out: ImageSet) -> dict[str, float]:
        """Return the averaged weights' bound of held-out images, one z an image, the same every time."""
        if not len(held_out):
            return {}
        rng = generator(self.config.seed, NO_STEP, self.device)
        bound = bound_of(self.ema, held_out.x, held_out.y, rng)
        return {f"validation_{name}": value for name, value in bound._asdict().items()}


def main(config: TrainConfig) -> None:
    """Train, from the start or from the last checkpoint."""
    launch(fit, config)


def fit(config: TrainConfig, ranks: Ranks) -> None:
    """Train; raises FloatingPointError if the run diverges, ValueError on several ranks."""
    if ranks.size > 1:
        raise ValueError("an autoencoder is trained by one process: start it without torchrun")
    dataset, held_out = divided(load_images(config.data, "train"), config.validation)
    if not config.conditional:
        dataset, held_out = (ImageSet(s.x, torch.zeros_like(s.y), ()) for s in (dataset, held_out))
    feed = Feed(dataset, config, ranks)
    model = model_config(config, dataset)
    torch.manual_seed(config.seed)  # of the initial weights
    learning = Learning(config, model, feed)
    sets = {"data": dataset} | ({"held_out": held_out} if len(held_out) else {})
    checkpoint = Checkpoint(config, model, sets, first=ranks.first)
    recorder = Recorder(config, checkpoint, feed, learning.vae, learning.ema, learning.optimizer)
    ema = learning.ema

    for step in range(recorder.start, feed.total):
        values = learning.step(step)
        measured = learning.measured(held_out) if recorder.draws(step) else None
        recorder.record(step, values, lambda: one_step_grid(ema, model), measured)
    recorder.close()


if __name__ == "__main__":
    configure(main, TrainConfig, __doc__.split("\n\n")[0], sys.argv[1:])
