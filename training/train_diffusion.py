"""Train a diffusion model: real images in, a run directory out.

    python training/train_diffusion.py --config training/configs/diffusion-mnist.yaml
    python training/train_diffusion.py --config ... --epochs 2 --max-batches-per-epoch 100     # a quick look
    torchrun --nproc-per-node 2 training/train_diffusion.py --config ...  # the same curve on two ranks

Run it again after a kill and it goes on from the last checkpoint, to the weights an unbroken run ends with.
"""

import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from genserve import data, run, train
from genserve.diagnosis import sample_grid
from genserve.diffusion import denoising_loss, training_sigmas
from genserve.learner import GeneratorConfig, Learner, launch
from genserve.unet import UNetConfig


@dataclass(frozen=True, kw_only=True)
class TrainConfig(GeneratorConfig):
    """One training run; saved in config.json beside the weights.

    Args:
        net: the network.
        conditional: learn the data's classes.
        label_dropout: share of images shown without their class, for guidance and unconditional samples.
        p_mean, p_std: ln sigma ~ N(p_mean, p_std**2) are the noise levels of training.
        sigma_min, sigma_max: the noise levels between which the model will be sampled.
    """

    name: str = "diffusion"
    net: UNetConfig = field(default_factory=UNetConfig)
    conditional: bool = True
    label_dropout: float = 0.1
    p_mean: float = -1.2
    p_std: float = 1.2
    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.p_std <= 0:
            raise ValueError(f"p_std must be above 0, got {self.p_std}")
        if not 0 <= self.label_dropout < 1:
            raise ValueError(f"label_dropout must be in [0, 1), got {self.label_dropout}")


def main(config: TrainConfig) -> None:
    """Train, from the start or from the last checkpoint."""
    launch(fit, config)


def fit(config: TrainConfig, ranks: train.Ranks) -> None:
    device = ranks.device
    dataset = data.load(config.data, "train")
    per_epoch = config.batches(len(dataset), ranks)
    total = config.epochs * per_epoch

    mean, std = data.mean_and_std(dataset)
    model = run.ModelConfig(
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
    directory = Path(config.output) / config.name
    checkpoint = train.Checkpoint(directory, config, model, first=ranks.first, tensorboard=config.tensorboard)
    learner = Learner(model.build(), config, checkpoint, ranks, total)
    parallel = ranks.wrap(learner.model)
    autocast = train.precision_of(config.precision, device)
    x_all, y_all = dataset.x.to(device), dataset.y.to(device)
    no_class = len(model.classes)

    def batch(step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """This rank's x_0, sigma, y and eps. Each rank draws the whole batch, so that they change nothing."""
        rng = train.generator(config.seed, step, device)
        picked = data.batch_indices(len(dataset), config.batch_size, per_epoch, config.seed, step).to(device)
        x_0, y = data.augmented(data.normalise(x_all[picked]), config.augment, rng), y_all[picked]
        eps = torch.randn(x_0.shape, generator=rng, device=device)
        u = torch.rand(len(x_0), generator=rng, device=device)
        sigma = training_sigmas(u, config.p_mean, config.p_std)
        dropped = torch.rand(len(x_0), generator=rng, device=device) < config.label_dropout
        y = torch.where(dropped, no_class, y) if no_class else torch.zeros_like(y)
        return ranks.mine(x_0), ranks.mine(sigma), ranks.mine(y), ranks.mine(eps)

    if ranks.first:
        tqdm.write(f"{directory}: {len(dataset)} images {model.shape}, {learner.parameters}, {total} steps")
    for step in range(learner.start, total):
        x_0, sigma, y, eps = batch(step)
        train.seed_dropout(config.seed, step, ranks.rank)
        with autocast():
            loss = denoising_loss(parallel, x_0, sigma, y, eps, model.std).mean()
        values = learner.step(step, loss)
        learner.record(step, values, lambda: sample_grid(learner.ema, model, device))
    learner.bar.close()


if __name__ == "__main__":
    train.configure(main, TrainConfig, __doc__.split("\n\n")[0], sys.argv[1:])
