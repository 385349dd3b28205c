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

import math
import sys
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from genserve.cli import configure
from genserve.data.pictures import ImageSet, load_images, mean_and_std
from genserve.files import digest
from genserve.learning.checkpoint import Checkpoint
from genserve.learning.config import DenoiserConfig, check_levels
from genserve.learning.feed import Feed
from genserve.learning.identity import require_same
from genserve.learning.optim import (
    averaged,
    diverged,
    generator,
    learning_rate,
    placed,
    precision_of,
    seed_dropout,
    set_learning_rate,
    update_ema,
)
from genserve.learning.previews import ancestral, chained, diagnostics, sample_grid, write_energies
from genserve.learning.ranks import Ranks, launch
from genserve.learning.recorder import Recorder
from genserve.models.config import ModelConfig
from genserve.models.contrastive import ChainConfig, ReplayBuffer, contrastive_loss, walk
from genserve.models.denoiser import denoising_loss
from genserve.models.energy import EnergyDenoiser, ResidualEnergy
from genserve.models.unet import UNetConfig
from genserve.places import located
from genserve.runs.directory import load_denoiser
from genserve.sampling.samplers import Model, level
from genserve.sampling.wrappers import guided_model

NO_STEP = 2**62  # no step of a run has this number, so its random numbers are free for the replay buffer
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
        teacher_guidance: weight of the class in the teacher's answers. Above 1 the energy is that of the
            sharpened distribution, and draws like a guided model without the second evaluation.
        channels: of the convolutions of contrastive.
        langevin: the chains of contrastive.
        alpha: weight of the squared energies of contrastive.
        data_noise: std of the noise on the data of contrastive, so that no picture becomes a needle.
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


# ---- recipes: the energy, and its loss in each step --------------------------------------------------------


class ScoreMatching:
    """Teach the denoiser inside the energy; the gradient goes through the gradient."""

    def __init__(self, config: TrainConfig, model: ModelConfig, ranks: Ranks, feed: Feed) -> None:
        self.config, self.model, self.ranks, self.feed = config, model, ranks, feed
        self.no_class, self.sigma, self.setting = len(model.classes), READ_SIGMA, ancestral(model)
        self.autocast = precision_of(config.precision, ranks.device)
        energy = model.build()
        assert isinstance(energy, ResidualEnergy)
        self.target: Model | None = None
        if config.teacher:
            require_same(
                "teacher", located(config.teacher), model, ("shape", "classes", "mean", "std", "net")
            )
            teacher = load_denoiser(located(config.teacher))
            energy.residual.load_state_dict(teacher.state_dict())
            self.target = placed(teacher, ranks.device)
            if config.teacher_guidance != 1:
                self.target = guided_model(self.target, config.teacher_guidance, self.no_class)
        self.energy: nn.Module = placed(energy, ranks.device)
        self.parallel = ranks.wrap(EnergyDenoiser(self.energy))
        self.more: dict[str, Tensor] = {}  # what a resumed run needs besides weights and optimiser

    def loss(self, step: int) -> Tensor:
        """Return the loss of a step, a scalar."""
        self.batch, self.rng = self.feed.noised(step, self.config, self.no_class)
        x_0, sigma, y, eps = map(self.ranks.mine, self.batch)
        seed_dropout(self.config.seed, step, self.ranks.rank)
        with self.autocast():
            return denoising_loss(self.parallel, x_0, sigma, y, eps, self.model.std, self.target).mean()

    def diagnostics(self, ema: nn.Module) -> dict[str, float]:
        """Return where the step's data, and the same data denoised, lie in the averaged energy."""
        x_0 = self.batch.x_0
        noisy = x_0 + self.sigma * torch.randn(x_0.shape, generator=self.rng, device=x_0.device)
        no_classes = torch.full_like(self.batch.y, self.no_class)
        with torch.no_grad():
            denoised = EnergyDenoiser(ema)(noisy, level(self.sigma, noisy), no_classes)
        return diagnostics(ema, self.sigma, self.no_class, x_0, denoised, self.rng)


class Contrastive:
    """Lower the energy of data, raise that of where Langevin chains go."""

    def __init__(self, config: TrainConfig, model: ModelConfig, ranks: Ranks, feed: Feed) -> None:
        self.config, self.ranks, self.feed = config, ranks, feed
        self.sigma, self.setting = 1.0, chained(config.langevin)
        self.autocast = precision_of(config.precision, ranks.device)
        self.energy: nn.Module = placed(model.build(), ranks.device)
        self.parallel = ranks.wrap(self.energy)
        n_chains = config.langevin.buffer or config.batch_size
        self.buffer = ReplayBuffer(n_chains, model.shape, generator(config.seed, NO_STEP, ranks.device))
        self.more = {"buffer": self.buffer.x}  # what a resumed run needs besides weights and optimiser

    def loss(self, step: int) -> Tensor:
        """Return the loss of a step, a scalar; the chains in the buffer move on.

        Raises:
            FloatingPointError: a mean energy is beyond its limit.
        """
        config, ranks = self.config, self.ranks
        x_0, _, self.rng = self.feed.images(step)
        self.x_0 = x_0 + config.data_noise * torch.randn(x_0.shape, generator=self.rng, device=x_0.device)
        fresh = config.langevin.fresh if config.langevin.buffer else 1.0
        chosen, starts = self.buffer.take(len(x_0), fresh, self.rng)
        negatives = self.walked(ranks.mine(starts))
        self.negatives = ranks.gather(negatives)
        self.buffer.put(chosen, self.negatives)
        data = ranks.mine(self.x_0)
        with self.autocast():
            loss, e_data, e_negative = contrastive_loss(self.parallel, data, negatives, config.alpha)
        energies = {"data": e_data, "negatives": e_negative}
        means = {name: ranks.mean(energy.detach().mean()) for name, energy in energies.items()}
        if beyond := [f"{k} {v:.3g}" for k, v in means.items() if not abs(v) <= config.energy_limit]:
            reason = f"mean energy of {' and of '.join(beyond)}, beyond the limit of {config.energy_limit:g}"
            raise diverged(config, step, self.feed.total, reason)
        return loss

    def walked(self, starts: Tensor) -> Tensor:
        """Return the ends of this rank's chains, (B / size, C, H, W)."""
        chains, rng, ranks = self.config.langevin, self.rng, self.ranks

        def noise(x: Tensor) -> Tensor:
            """Return this rank's part of the global batch's noise."""
            shape = (len(x) * ranks.size, *x.shape[1:])
            return ranks.mine(torch.randn(shape, generator=rng, device=x.device))

        self.energy.requires_grad_(False)
        with self.autocast():
            ends = walk(self.energy, starts, chains, chains.steps, noise)
        self.energy.requires_grad_(True)
        return ends

    def diagnostics(self, ema: nn.Module) -> dict[str, float]:
        """Return where the step's data and negatives lie in the energy itself, not in its average."""
        return diagnostics(self.energy, self.sigma, 0, self.x_0, self.negatives, self.rng)


RECIPES: dict[str, type[ScoreMatching] | type[Contrastive]] = {
    "score_matching": ScoreMatching,
    "contrastive": Contrastive,
}


# ---- the loop ----------------------------------------------------------------------------------------------


def main(config: TrainConfig) -> None:
    """Train, from the start or from the last checkpoint."""
    launch(fit, config)


def fit(config: TrainConfig, ranks: Ranks) -> None:
    """Train as one of these ranks; raises FloatingPointError if the run diverges."""
    dataset = load_images(config.data, "train")
    feed = Feed(dataset, config, ranks)
    model = model_config(config, dataset)
    torch.manual_seed(config.seed)  # of the initial weights
    recipe = RECIPES[config.recipe](config, model, ranks, feed)
    energy, ema = recipe.energy, averaged(recipe.energy)
    optimizer = torch.optim.AdamW(energy.parameters(), betas=config.betas, weight_decay=config.weight_decay)
    inputs = {"teacher": digest(located(config.teacher) / "weights.safetensors")} if config.teacher else {}
    checkpoint = Checkpoint(config, model, {"data": dataset}, inputs, first=ranks.first)
    recorder = Recorder(config, checkpoint, feed, energy, ema, optimizer)
    recorder.include(recipe.more)

    for step in range(recorder.start, feed.total):
        lr = learning_rate(step, feed.total, config.warmup, config.lr)
        set_learning_rate(optimizer, lr)
        loss = recipe.loss(step)

        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        grad_norm = clip_grad_norm_(energy.parameters(), config.grad_clip).item()
        mean_loss = ranks.mean(loss.detach())
        if not math.isfinite(mean_loss + grad_norm):
            raise diverged(config, step, feed.total, f"loss {mean_loss} and gradient norm {grad_norm}")
        optimizer.step()
        update_ema(ema, energy, config.ema_decay, step)

        values = {"loss": mean_loss, "lr": lr, "grad_norm": grad_norm}
        if recorder.due(step):
            values |= recipe.diagnostics(ema)
        recorder.record(step, values, lambda: sample_grid(ema, model, recipe.setting))
    recorder.close()
    if ranks.first:
        write_energies(checkpoint.directory, ema, recipe.sigma, len(model.classes), dataset)


if __name__ == "__main__":
    configure(main, TrainConfig, __doc__.split("\n\n")[0], sys.argv[1:])
