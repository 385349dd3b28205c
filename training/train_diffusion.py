"""Train a diffusion model: real images in, a run directory out.

    python training/train_diffusion.py --config training/configs/diffusion-mnist.yaml
    python training/train_diffusion.py --config ... --epochs 2 --max-batches-per-epoch 100     # a quick look
    torchrun --nproc-per-node 2 training/train_diffusion.py --config ...  # the same curve on two ranks

Run it again after a kill and it goes on from the last checkpoint, to the weights an unbroken run ends with.
"""

import copy
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from genserve import data, images, run, train
from genserve.data import DataConfig
from genserve.diffusion import Denoiser, ddim, denoising_loss, training_sigmas
from genserve.diffusion import run as sample
from genserve.noise import Streams
from genserve.schedules import karras


@dataclass(frozen=True, kw_only=True)
class NetConfig:
    """The UNet (genserve/unet.py).

    Args:
        patch: side of the pixel squares folded into channels first, 1 for none.
        channels: width of each level; between levels the resolution halves.
        blocks: residual blocks a level, each way.
        attention: resolutions that carry self-attention.
        heads: heads of each attention.
        dropout: in each residual block.
    """

    patch: int = 2
    channels: tuple[int, ...] = (64, 128)
    blocks: int = 1
    attention: tuple[int, ...] = (7,)
    heads: int = 4
    dropout: float = 0.0


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Changes that leave an image a plausible one.

    Args:
        shift: move by up to so many pixels.
        flip: mirror left to right, half of the images (not for digits).
    """

    shift: int = 0
    flip: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run; saved in config.json beside the weights.

    Args:
        name: the run is written to OUTPUT/NAME.
        output: where run directories are.
        data: the images.
        net: the network.
        augment: augmentation.
        conditional: learn the data's classes.
        label_dropout: share of images shown without their class, for guidance and unconditional samples.
        p_mean, p_std: ln sigma ~ N(p_mean, p_std**2) are the noise levels of training.
        sigma_min, sigma_max: the noise levels between which the model will be sampled.
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

    name: str = "diffusion"
    output: str = "runs"
    data: DataConfig = field(default_factory=DataConfig)
    net: NetConfig = field(default_factory=NetConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    conditional: bool = True
    label_dropout: float = 0.1
    p_mean: float = -1.2
    p_std: float = 1.2
    sigma_min: float = 0.002
    sigma_max: float = 80.0
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
        for name, allowed in (("precision", ("auto", "bf16", "fp32")), ("device", ("auto", "cpu", "cuda"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name in ("epochs", "batch_size", "sample_every", "checkpoint_every", "lr", "grad_clip", "p_std"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("ema_decay", "label_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")


@torch.no_grad()
def sample_grid(denoiser: Denoiser, model: run.ModelConfig, device: torch.device) -> bytes:
    """Return a PNG of 8 images a class, a column each (64 without classes), the same noise every time."""
    n_classes = len(model.classes)
    columns = min(n_classes, 10) or 8
    y = torch.arange(8 * columns, device=device) % columns * (n_classes > 0)
    noise = Streams(0, range(len(y)))
    sigmas = karras(25, model.sigma_min, model.sigma_max)
    x_t = sigmas[0].item() * noise(torch.empty(len(y), *model.shape, device=device))
    x_0 = sample(ddim(x_t, sigmas, y, eta=1.0, noise=noise), denoiser)
    sheet = images.grid(images.to_pixels(x_0), columns)
    return images.png(images.enlarge(sheet, max(1, 64 // model.shape[1])))


def main(config: TrainConfig) -> None:
    """Train, from the start or from the last checkpoint."""
    if config.threads:
        torch.set_num_threads(config.threads)
    ranks = train.join_ranks(config.device)
    try:
        fit(config, ranks)
    finally:
        train.leave_ranks()


def fit(config: TrainConfig, ranks: train.Ranks) -> None:
    device = ranks.device
    if config.batch_size % ranks.size:
        raise ValueError(f"batch_size {config.batch_size} must be a multiple of the {ranks.size} ranks")
    dataset = data.load(config.data, "train")
    per_epoch = min(len(dataset) // config.batch_size, config.max_batches_per_epoch or len(dataset))
    if per_epoch < 1:
        raise ValueError(f"batch_size {config.batch_size} is more than the {len(dataset)} images")
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
    denoiser = model.build().to(device, memory_format=torch.channels_last)
    ema = copy.deepcopy(denoiser).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(denoiser.parameters(), betas=config.betas, weight_decay=config.weight_decay)
    directory = Path(config.output) / config.name
    checkpoint = train.Checkpoint(directory, config, model, first=ranks.first, tensorboard=config.tensorboard)
    start = 0
    if state := checkpoint.resume():
        start = state["step"]
        denoiser.load_state_dict(state["model"])
        ema.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
    parallel = ranks.wrap(denoiser)
    autocast = train.precision_of(config.precision, device)
    x_all, y_all = dataset.x.to(device), dataset.y.to(device)
    no_class = len(model.classes)

    def batch(step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """This rank's x_0, sigma, y and eps. Each rank draws the whole batch, so that they change nothing."""
        rng = train.generator(config.seed, step, device)
        picked = data.batch_indices(len(dataset), config.batch_size, per_epoch, config.seed, step).to(device)
        x_0, y = data.normalise(x_all[picked]), y_all[picked]
        if config.augment.shift:
            x_0 = data.shifted(x_0, config.augment.shift, rng)
        if config.augment.flip:
            x_0 = data.flipped(x_0, rng)
        eps = torch.randn(x_0.shape, generator=rng, device=device)
        u = torch.rand(len(x_0), generator=rng, device=device)
        sigma = training_sigmas(u, config.p_mean, config.p_std)
        dropped = torch.rand(len(x_0), generator=rng, device=device) < config.label_dropout
        y = torch.where(dropped, no_class, y) if no_class else torch.zeros_like(y)
        return ranks.mine(x_0), ranks.mine(sigma), ranks.mine(y), ranks.mine(eps)

    parameters = sum(p.numel() for p in denoiser.parameters())
    if ranks.first:
        size = f"{parameters / 1e6:.2f} M parameters"
        tqdm.write(f"{directory}: {len(dataset)} images {model.shape}, {size}, {total} steps")
    bar = tqdm(total=total, initial=start, disable=not ranks.first, unit="step", dynamic_ncols=True)
    clock, logged = time.perf_counter(), start
    for step in range(start, total):
        lr = train.learning_rate(step, total, config.warmup, config.lr)
        for group in optimizer.param_groups:
            group["lr"] = lr
        x_0, sigma, y, eps = batch(step)
        train.seed_dropout(config.seed, step, ranks.rank)
        with autocast():
            loss = denoising_loss(parallel, x_0, sigma, y, eps, model.std).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(denoiser.parameters(), config.grad_clip)
        mean_loss = ranks.mean(loss.detach())
        if not torch.isfinite(norm) or mean_loss != mean_loss:
            raise FloatingPointError(
                f"loss {mean_loss} and gradient norm {norm.item()} at step {step}, lr {lr:.2g}; a "
                f"checkpoint in {directory} is from before. Try a lower --lr or --precision fp32. {config}"
            )
        optimizer.step()
        train.update_ema(ema, denoiser, config.ema_decay, step)

        done = step + 1
        bar.update()
        if done % 50 == 0 or done == total:
            seconds = time.perf_counter() - clock
            speed = (done - logged) * config.batch_size / seconds
            clock, logged = time.perf_counter(), done
            checkpoint.record(
                done,
                loss=mean_loss,
                lr=lr,
                grad_norm=norm.item(),
                images=done * config.batch_size,
                images_per_s=round(speed, 1),
            )
            bar.set_postfix_str(f"loss {mean_loss:.3f}, {speed:.0f} images/s")
        if ranks.first and (done % config.sample_every == 0 or done == total):
            run.write_atomic(directory / "samples.png", sample_grid(ema, model, device))
        if done % config.checkpoint_every == 0 or done == total:
            checkpoint.save(done, denoiser, ema, optimizer)
    bar.close()


if __name__ == "__main__":
    train.configure(main, TrainConfig, __doc__.split("\n\n")[0], sys.argv[1:])
