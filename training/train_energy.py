"""Train an energy: real images in, a run directory out.

    python training/train_energy.py --config training/configs/energy-mnist.yaml      # score matching
    python training/train_energy.py --config training/configs/energy-mnist-pcd.yaml  # contrastive divergence
    torchrun --nproc-per-node 2 training/train_energy.py --config ...  # the same curve on two ranks

Recipes: `score_matching` teaches an energy that knows noise levels to denoise (with a trained denoiser as its
teacher, minutes are enough); `contrastive` is the classic one, which draws its own counter-examples by
Langevin dynamics from a replay buffer, and takes hours.

Run it again after a kill and it goes on from the last checkpoint, to the weights an unbroken run ends with.
docs/training.md says what may change then; --start-from begins a new run with the weights of another.
"""

import sys
from dataclasses import asdict, dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from genserve.cli import configure
from genserve.data.pictures import ImageSet, load_images, mean_and_std
from genserve.files import digest
from genserve.learning.checkpoint import Checkpoint
from genserve.learning.config import DenoiserConfig, check_levels
from genserve.learning.feed import Feed
from genserve.learning.learner import Learner, launch, taught_by
from genserve.learning.optim import generator, precision_of, seed_dropout
from genserve.learning.previews import chain_grid, diagnostics, sample_grid, write_energies
from genserve.learning.ranks import Ranks
from genserve.models.config import ModelConfig
from genserve.models.contrastive import ChainConfig, ReplayBuffer, contrastive_loss, walk
from genserve.models.denoiser import denoising_loss
from genserve.models.energy import EnergyDenoiser
from genserve.models.unet import UNetConfig
from genserve.places import located
from genserve.sampling.samplers import Model, level
from genserve.sampling.wrappers import guided_model

NO_STEP = 2**62  # whose random numbers no step draws
READ_SIGMA = 0.5  # the noise level at which an energy that knows noise levels is read


@dataclass(frozen=True, kw_only=True)
class TrainConfig(DenoiserConfig):
    """One training run; saved in config.json beside the weights.

    Args:
        recipe: score_matching or contrastive.
        net: the UNet of score_matching.
        conditional, label_dropout, p_mean, p_std: as in diffusion, of score_matching.
        sigma_min, sigma_max: the noise levels between which the model will be sampled.
        teacher: run directory of a diffusion model of the same net: start from its weights and match its
            answers instead of clean images.
        teacher_guidance: weight of the class in the teacher's answers: an energy so taught draws like a
            guided model without the second evaluation, and is that of the sharpened distribution.
        channels: of the convolutions of contrastive.
        langevin: the chains of contrastive.
        alpha: weight of the squared energies of contrastive.
        data_noise: std of the noise on the data of contrastive, so that no picture is a needle.
        energy_limit: a mean energy beyond this, either way, ends a contrastive run as diverged.
    """

    name: str = "energy"
    recipe: str = "score_matching"
    net: UNetConfig = field(default_factory=UNetConfig)
    conditional: bool = True
    p_mean: float = 0.3
    p_std: float = 1.4
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    teacher: str | None = None
    teacher_guidance: float = 1.0
    channels: tuple[int, ...] = (32, 64, 128, 128)
    langevin: ChainConfig = field(default_factory=ChainConfig)
    alpha: float = 0.1
    data_noise: float = 0.005
    energy_limit: float = 100.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_levels(self.sigma_min, self.sigma_max)
        if self.recipe not in RECIPES:
            raise ValueError(f"recipe must be one of {', '.join(RECIPES)}, got {self.recipe!r}")
        if self.teacher is not None and self.recipe != "score_matching":
            raise ValueError("teacher is of the recipe score_matching alone")
        if self.teacher_guidance != 1 and not (self.teacher and self.conditional):
            raise ValueError("teacher_guidance needs a teacher and classes")
        chains = self.langevin
        for name, value in (
            ("energy_limit", self.energy_limit),
            ("langevin.steps", chains.steps),
            ("langevin.step_size", chains.step_size),
            ("langevin.gradient_max", chains.gradient_max),
        ):
            if value <= 0:
                raise ValueError(f"{name} must be above 0, got {value}")
        if not 0 <= chains.fresh <= 1:
            raise ValueError(f"langevin.fresh must be in [0, 1], got {chains.fresh}")
        if chains.buffer and chains.buffer < self.batch_size:
            raise ValueError(
                f"langevin.buffer must be 0 or at least batch_size {self.batch_size}, got {chains.buffer}"
            )


def model_config(config: TrainConfig, dataset: ImageSet) -> ModelConfig:
    """Return what it takes to build this energy again."""
    mean, std = mean_and_std(dataset)
    matching = config.recipe == "score_matching"
    return ModelConfig(
        family="energy",
        energy="residual" if matching else "plain",
        shape=dataset.shape,
        classes=dataset.classes if matching and config.conditional else (),
        mean=round(mean, 4),
        std=round(std, 4),
        sigma_min=config.sigma_min if matching else 1.0,
        sigma_max=config.sigma_max if matching else 1.0,
        net=asdict(config.net) if matching else {"channels": config.channels},
    )


def main(config: TrainConfig) -> None:
    """Train, from the start or from the last checkpoint."""
    launch(fit, config)


def fit(config: TrainConfig, ranks: Ranks) -> None:
    dataset = load_images(config.data, "train")
    feed = Feed(dataset, config, ranks)
    model = model_config(config, dataset)
    torch.manual_seed(config.seed)  # of the initial weights
    energy = model.build()
    teacher, inputs = None, {}
    if config.teacher:
        teacher = taught_by(located(config.teacher), model)
        inputs["teacher"] = digest(located(config.teacher) / "weights.safetensors")
        energy.residual.load_state_dict(teacher.state_dict())
    checkpoint = Checkpoint(config, model, {"data": dataset}, inputs, first=ranks.first)
    learner = Learner(energy, config, checkpoint, ranks, feed.total)
    learner.introduce(dataset)
    RECIPES[config.recipe](config, model, learner, ranks, feed, teacher)
    learner.bar.close()
    if ranks.first:
        sigma = READ_SIGMA if config.recipe == "score_matching" else 1.0
        write_energies(checkpoint.directory, learner.ema, sigma, len(model.classes), dataset)


# ---- recipes -----------------------------------------------------------------------------------------------


def score_matching(
    config: TrainConfig,
    model: ModelConfig,
    learner: Learner,
    ranks: Ranks,
    feed: Feed,
    teacher: nn.Module | None,
) -> None:
    """Teach the denoiser that is in the energy; the gradient goes through the gradient."""
    parallel = ranks.wrap(EnergyDenoiser(learner.model))
    autocast = precision_of(config.precision, ranks.device)
    no_class = len(model.classes)
    teacher = teacher.to(ranks.device, memory_format=torch.channels_last) if teacher else None
    wanted: Model | None = teacher
    if teacher and config.teacher_guidance != 1:
        wanted = guided_model(teacher, config.teacher_guidance, no_class)
    for step in range(learner.start, learner.total):
        whole, rng = feed.noised(step, config, no_class)
        seed_dropout(config.seed, step, ranks.rank)
        with autocast():
            loss = denoising_loss(parallel, *map(ranks.mine, whole), model.std, wanted).mean()
        values = learner.step(step, loss)

        if learner.looks(step):
            x_0 = whole.x_0
            noisy = x_0 + READ_SIGMA * torch.randn(x_0.shape, generator=rng, device=x_0.device)
            nobody = torch.full_like(whole.y, no_class)
            with torch.no_grad():
                denoised = EnergyDenoiser(learner.ema)(noisy, level(READ_SIGMA, noisy), nobody)
            values |= diagnostics(learner.ema, READ_SIGMA, no_class, x_0, denoised, rng)
        picture = partial(sample_grid, EnergyDenoiser(learner.ema), model, ranks.device)
        learner.record(step, values, picture)


def contrastive(
    config: TrainConfig,
    model: ModelConfig,
    learner: Learner,
    ranks: Ranks,
    feed: Feed,
    teacher: nn.Module | None,
) -> None:
    """Lower the energy of data, raise that of where Langevin chains go."""
    chains = config.langevin
    parallel = ranks.wrap(learner.model)
    autocast = precision_of(config.precision, ranks.device)
    buffer = ReplayBuffer(
        chains.buffer or config.batch_size, model.shape, generator(config.seed, NO_STEP, ranks.device)
    )
    if learner.state:
        buffer.x.copy_(learner.state["buffer"])
    for step in range(learner.start, learner.total):
        x_0, _, rng = feed.images(step)
        x_0 = x_0 + config.data_noise * torch.randn(x_0.shape, generator=rng, device=x_0.device)
        fresh = chains.fresh if chains.buffer else 1.0
        chosen, start = buffer.take(len(x_0), fresh, rng)

        def noise(x: Tensor, rng: torch.Generator = rng) -> Tensor:
            """This rank's part of the whole batch's noise."""
            whole = (len(x) * ranks.size, *x.shape[1:])
            return ranks.mine(torch.randn(whole, generator=rng, device=x.device))

        learner.model.requires_grad_(False)
        with autocast():
            negatives = walk(learner.model, ranks.mine(start), chains, chains.steps, noise)
        learner.model.requires_grad_(True)
        buffer.put(chosen, ranks.all(negatives))
        with autocast():
            loss, e_data, e_negative = contrastive_loss(parallel, ranks.mine(x_0), negatives, config.alpha)
        means = {
            "data": ranks.mean(e_data.detach().mean()),
            "negatives": ranks.mean(e_negative.detach().mean()),
        }
        if beyond := [f"{k} {v:.3g}" for k, v in means.items() if not abs(v) <= config.energy_limit]:
            raise learner.diverged(
                step, f"mean energy of {' and of '.join(beyond)}, beyond the limit of {config.energy_limit:g}"
            )
        values = learner.step(step, loss)

        if learner.looks(step):
            values |= diagnostics(learner.model, 1.0, 0, x_0, ranks.all(negatives), rng)
        picture = partial(chain_grid, learner.ema, model, chains, ranks.device)
        learner.record(step, values, picture, buffer=buffer.x)


RECIPES = {"score_matching": score_matching, "contrastive": contrastive}


if __name__ == "__main__":
    configure(main, TrainConfig, __doc__.split("\n\n")[0], sys.argv[1:])
