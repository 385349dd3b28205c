"""Train a diffusion model: real images in, a run directory out.

    python training/train_diffusion.py --config training/configs/diffusion-mnist.yaml
    python training/train_diffusion.py --config ... --epochs 2 --max-batches-per-epoch 100     # a quick look
    torchrun --nproc-per-node 2 training/train_diffusion.py --config ...  # the same curve on two ranks

Run it again after a kill and it goes on from the last checkpoint, to the weights an unbroken run ends with.
docs/training.md says what may change then; --start-from begins a new run with the weights of another.
"""

import sys
from dataclasses import asdict, dataclass, field

import torch

from genserve.cli import configure
from genserve.data.pictures import load_images, mean_and_std
from genserve.learning.checkpoint import Checkpoint
from genserve.learning.config import DenoiserConfig, check_levels
from genserve.learning.feed import Feed
from genserve.learning.learner import Learner, launch
from genserve.learning.optim import precision_of, seed_dropout
from genserve.learning.previews import sample_grid
from genserve.learning.ranks import Ranks
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
    """

    name: str = "diffusion"
    net: UNetConfig = field(default_factory=UNetConfig)
    conditional: bool = True
    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_levels(self.sigma_min, self.sigma_max)


def main(config: TrainConfig) -> None:
    """Train, from the start or from the last checkpoint."""
    launch(fit, config)


def fit(config: TrainConfig, ranks: Ranks) -> None:
    device = ranks.device
    dataset = load_images(config.data, "train")
    feed = Feed(dataset, config, ranks)
    mean, std = mean_and_std(dataset)
    model = ModelConfig(
        family="diffusion",
        shape=dataset.shape,
        classes=dataset.classes if config.conditional else (),
        mean=round(mean, 4),
        std=round(std, 4),
        sigma_min=config.sigma_min,
        sigma_max=config.sigma_max,
        net=asdict(config.net),
    )
    torch.manual_seed(config.seed)  # of the initial weights
    checkpoint = Checkpoint(config, model, {"data": dataset}, first=ranks.first)
    learner = Learner(model.build(), config, checkpoint, ranks, feed.total)
    parallel = ranks.wrap(learner.model)
    autocast = precision_of(config.precision, device)

    learner.introduce(dataset)
    for step in range(learner.start, feed.total):
        whole, _ = feed.noised(step, config, no_class=len(model.classes))
        x_0, sigma, y, eps = map(ranks.mine, whole)
        seed_dropout(config.seed, step, ranks.rank)
        with autocast():
            loss = denoising_loss(parallel, x_0, sigma, y, eps, model.std).mean()
        values = learner.step(step, loss)
        learner.record(step, values, lambda: sample_grid(learner.ema, model, device))
    learner.bar.close()


if __name__ == "__main__":
    configure(main, TrainConfig, __doc__.split("\n\n")[0], sys.argv[1:])
