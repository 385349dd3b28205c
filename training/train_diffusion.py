"""Train a diffusion model: real images in, a run directory out.

    python training/train_diffusion.py --config training/configs/diffusion-mnist.yaml
    python training/train_diffusion.py --config ... --epochs 2 --max-batches-per-epoch 100     # a quick look
    torchrun --nproc-per-node 2 training/train_diffusion.py --config ...  # the same curve on two ranks

Run it again after a kill and it goes on from the last checkpoint, to the weights an unbroken run ends with.
docs/training.md says what may change then; --start-from begins a new run with the weights of another.
"""

import math
import sys
from dataclasses import asdict, dataclass, field

import torch
from torch.nn.utils import clip_grad_norm_

from genserve.cli import configure
from genserve.data.pictures import ImageSet, load_images, mean_and_std
from genserve.learning.checkpoint import Checkpoint
from genserve.learning.config import DenoiserConfig, check_levels
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
from genserve.learning.previews import ancestral, sample_grid
from genserve.learning.ranks import Ranks, launch
from genserve.learning.recorder import Recorder
from genserve.models.config import ModelConfig
from genserve.models.denoiser import denoising_loss
from genserve.models.unet import UNetConfig


@dataclass(frozen=True, kw_only=True)
class TrainConfig(DenoiserConfig):
    """One training run; saved in config.json beside the weights.

    Args:
        net: the network.
        conditional: learn the data's classes.
        sigma_min, sigma_max: the noise levels between which the model will be sampled.
        compile: let torch compile the network: a minute before the first step, then faster ones.
    """

    name: str = "diffusion"
    net: UNetConfig = field(default_factory=UNetConfig)
    conditional: bool = True
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    compile: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_levels(self.sigma_min, self.sigma_max)


def model_config(config: TrainConfig, dataset: ImageSet) -> ModelConfig:
    """Return what it takes to build this denoiser again."""
    mean, std = mean_and_std(dataset)
    return ModelConfig(
        family="diffusion",
        shape=dataset.shape,
        classes=dataset.classes if config.conditional else (),
        mean=round(mean, 4),
        std=round(std, 4),
        sigma_min=config.sigma_min,
        sigma_max=config.sigma_max,
        net=asdict(config.net),
    )


def main(config: TrainConfig) -> None:
    """Train, from the start or from the last checkpoint."""
    launch(fit, config)


def fit(config: TrainConfig, ranks: Ranks) -> None:
    """Train as one of these ranks; raises FloatingPointError if the run diverges."""
    dataset = load_images(config.data, "train")
    feed = Feed(dataset, config, ranks)
    model = model_config(config, dataset)
    torch.manual_seed(config.seed)  # of the initial weights
    denoiser = placed(model.build(), ranks.device)
    ema = averaged(denoiser)
    optimizer = torch.optim.AdamW(denoiser.parameters(), betas=config.betas, weight_decay=config.weight_decay)
    checkpoint = Checkpoint(config, model, {"data": dataset}, first=ranks.first)
    recorder = Recorder(config, checkpoint, feed, denoiser, ema, optimizer)
    parallel = ranks.wrap(denoiser, config.compile)
    autocast = precision_of(config.precision, ranks.device)

    for step in range(recorder.start, feed.total):
        lr = learning_rate(step, feed.total, config.warmup, config.lr)
        set_learning_rate(optimizer, lr)
        batch, _ = feed.noised(step, config, no_class=len(model.classes))
        x_0, sigma, y, eps = map(ranks.mine, batch)
        seed_dropout(config.seed, step, ranks.rank)
        with autocast():
            loss = denoising_loss(parallel, x_0, sigma, y, eps, model.std).mean()

        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        grad_norm = clip_grad_norm_(denoiser.parameters(), config.grad_clip).item()
        mean_loss = ranks.mean(loss.detach())
        if not math.isfinite(mean_loss + grad_norm):
            raise diverged(config, step, feed.total, f"loss {mean_loss} and gradient norm {grad_norm}")
        optimizer.step()
        update_ema(ema, denoiser, config.ema_decay, step)

        values = {"loss": mean_loss, "lr": lr, "grad_norm": grad_norm}
        recorder.record(step, values, lambda: sample_grid(ema, model, ancestral(model)))
    recorder.close()


if __name__ == "__main__":
    configure(main, TrainConfig, __doc__.split("\n\n")[0], sys.argv[1:])
