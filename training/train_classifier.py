"""Train the classifier whose features measure the generators: real images in, a run directory out.

    python training/train_classifier.py --config training/configs/classifier-mnist.yaml
    python training/train_classifier.py --config ... --epochs 1 --max-batches-per-epoch 100     # a quick look

Beside the weights it writes train_features_stats.safetensors: the moments of the features of training and of
held-out images, all that a Frechet distance needs. Run it again after a kill and it goes on where it was;
docs/training.md says what may change then.
"""

import copy
import math
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from tqdm import tqdm

from genserve.cli import configure
from genserve.data.batches import AugmentConfig, augmented, batch_indices
from genserve.data.pictures import DataConfig, load_images
from genserve.images import normalise
from genserve.learning.checkpoint import Checkpoint, held
from genserve.learning.config import check
from genserve.learning.optim import generator, learning_rate, precision_of, update_ema
from genserve.learning.ranks import join_ranks
from genserve.measure import metrics
from genserve.measure.features import features_of, write_stats
from genserve.models.classifier import Classifier, ClassifierConfig, Whitening

STATISTICS = 8  # batches that BatchNorm's means and variances are of, in the end


@dataclass(frozen=True, kw_only=True)
class NetConfig:
    """The classifier (genserve/measure/classifier.py).

    Args:
        blocks: residual, or pooled: slower, and better for photographs.
        patch: side of the pixel squares folded into channels first, 1 for none.
        channels: width of each level; between levels the resolution halves.
        n_features: width of the penultimate layer.
        norm: group, or batch, which learns faster.
    """

    blocks: str = "residual"
    patch: int = 2
    channels: tuple[int, ...] = (64, 96)
    n_features: int = 128
    norm: str = "group"


@dataclass(frozen=True, kw_only=True)
class WarpConfig:
    """Smooth changes that leave an image what it shows; they blur it a little.

    Args:
        degrees: turn by up to so many.
        scale: enlarge or shrink by up to this share.
        shift: move by up to so many pixels.
    """

    degrees: float = 0.0
    scale: float = 0.0
    shift: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run; saved in config.json beside the weights.

    Args:
        name: the run is written to OUTPUT/NAME.
        output: where run directories are.
        start_from: run directory of a classifier like this one: begin a new run with its weights.
        data: the images.
        net: the network.
        judge: it only measures; whatever chooses steps, levels or checkpoints refuses it.
        augment: moves by whole pixels, and mirroring.
        warp: turning, scaling and moving by parts of a pixel.
        epochs: passes over the data.
        max_batches_per_epoch: cut each pass short.
        batch_size: images a step.
        lr: peak learning rate.
        bias_lr: the biases of norms learn so many times faster.
        warmup: steps of linear rise; a cosine to 0 follows.
        momentum: of gradient descent with Nesterov's momentum; 0 takes AdamW instead.
        weight_decay: a step takes lr times this away.
        label_smoothing: share of the target that goes to all classes alike.
        ema_decay: of the weights that are kept, a step.
        precision: auto (bf16 where the hardware has it), bf16 or fp32.
        seed: of everything random.
        tensorboard: also write TensorBoard files.
        device: auto, cpu or cuda.
        threads: CPU threads; 0 is torch's own choice.
    """

    name: str = "classifier"
    output: str = "runs"
    start_from: str | None = None
    data: DataConfig = field(default_factory=DataConfig)
    net: NetConfig = field(default_factory=NetConfig)
    judge: bool = False
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    warp: WarpConfig = field(default_factory=WarpConfig)
    epochs: int = 20
    max_batches_per_epoch: int | None = None
    batch_size: int = 128
    lr: float = 2e-3
    bias_lr: float = 1.0
    warmup: int = 100
    momentum: float = 0.0
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    ema_decay: float = 0.999
    precision: str = "auto"
    seed: int = 0
    tensorboard: bool = False
    device: str = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        check(self)


def warped(x: Tensor, warp: WarpConfig, generator: torch.Generator) -> Tensor:
    """Return each image turned, scaled and moved by its own amounts, border repeated; x is (B, C, H, W)."""
    angle, scale, right, down = torch.empty(4, len(x), device=x.device).uniform_(-1, 1, generator=generator)
    angle, scale = angle * math.radians(warp.degrees), 1 + warp.scale * scale
    cos, sin = angle.cos() / scale, angle.sin() / scale
    move = 2 * warp.shift * torch.stack([right / x.shape[3], down / x.shape[2]], dim=1)
    theta = torch.cat([torch.stack([cos, -sin, sin, cos], dim=1).view(-1, 2, 2), move.unsqueeze(-1)], dim=2)
    where = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, where, padding_mode="border", align_corners=False)


def optimizer_of(classifier: Classifier, config: TrainConfig) -> torch.optim.Optimizer:
    """Return AdamW, or Nesterov's gradient descent; `faster` of a group multiplies its learning rate."""
    norms = [m for m in classifier.modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)]
    biases = {m.bias for m in norms}
    others = [p for p in classifier.parameters() if p.requires_grad and p not in biases]
    decay, faster = config.weight_decay, config.bias_lr
    groups: list[dict[str, Any]] = [
        {"params": others, "faster": 1.0, "weight_decay": decay},
        {"params": [m.bias for m in norms], "faster": faster, "weight_decay": decay / faster},
    ]
    if config.momentum:
        return torch.optim.SGD(groups, config.lr, config.momentum, nesterov=True)
    return torch.optim.AdamW(groups)


def main(config: TrainConfig) -> None:
    """Train, from the start or from the last epoch done."""
    if config.threads:
        torch.set_num_threads(config.threads)
    device = join_ranks(config.device).device
    with held(Path(config.output) / config.name):
        fit(config, device)


def fit(config: TrainConfig, device: torch.device) -> None:
    dataset, held_out = load_images(config.data, "train"), load_images(config.data, "test")
    per_epoch = min(len(dataset) // config.batch_size, config.max_batches_per_epoch or len(dataset))
    if per_epoch < 1:
        raise ValueError(f"batch_size {config.batch_size} is more than the {len(dataset)} images")
    total = config.epochs * per_epoch

    model = ClassifierConfig(
        family="classifier",
        shape=dataset.shape,
        classes=dataset.classes,
        net=asdict(config.net),
        judge=config.judge,
    )
    torch.manual_seed(config.seed)  # of the initial weights
    classifier = model.build().to(device, memory_format=torch.channels_last)
    x_all, y_all = dataset.x.to(device), dataset.y.to(device)
    if isinstance(stem := classifier.body[0], Whitening):
        stem.learn(normalise(x_all[:5000]))
    ema = copy.deepcopy(classifier).eval().requires_grad_(False)
    optimizer = optimizer_of(classifier, config)
    checkpoint = Checkpoint(config, model, {"data": dataset, "held_out": held_out}, first=True)
    start: int = checkpoint.resume(classifier, ema, optimizer, total).get("step", 0)
    autocast = precision_of(config.precision, device)

    def images(step: int) -> tuple[Tensor, Tensor]:
        """The images of a step, augmented, and their classes."""
        picked = batch_indices(len(dataset), config.batch_size, per_epoch, config.seed, step).to(device)
        rng = generator(config.seed, step, device)
        x = augmented(normalise(x_all[picked]), config.augment, rng)
        return (x if config.warp == WarpConfig() else warped(x, config.warp, rng)), y_all[picked]

    parameters = sum(p.numel() for p in classifier.parameters())
    size = f"{len(dataset)} images {model.shape}, {parameters / 1e6:.2f} M parameters"
    tqdm.write(f"{checkpoint.directory}: {size}")
    bar = tqdm(total=total, initial=start, unit="step", dynamic_ncols=True)
    clock, losses = time.perf_counter(), torch.zeros((), device=device)
    for step in range(start, total):
        lr = learning_rate(step, total, config.warmup, config.lr)
        for group in optimizer.param_groups:
            group["lr"] = lr * group["faster"]
        x, y = images(step)
        with autocast():
            loss = F.cross_entropy(classifier(x).float(), y, label_smoothing=config.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        update_ema(ema, classifier, config.ema_decay, step)

        done = step + 1
        losses += loss.detach()
        bar.update()
        if done % per_epoch == 0:
            mean_loss = losses.item() / per_epoch
            if not math.isfinite(mean_loss):
                raise FloatingPointError(f"loss {mean_loss} at step {done}: try --lr below {config.lr}")
            # the averaged weights want statistics of their own: with those of the latest weights they err
            update_bn((images(step - k)[0] for k in range(min(STATISTICS, per_epoch))), ema)
            with autocast():
                logits = ema.logits(features_of(ema, held_out.x).to(device))
            accuracy = metrics.accuracy(logits.cpu(), held_out.y)
            speed = per_epoch * config.batch_size / (time.perf_counter() - clock)
            clock, losses = time.perf_counter(), torch.zeros_like(losses)
            checkpoint.record(done, loss=mean_loss, test_accuracy=accuracy, images_per_s=round(speed, 1))
            checkpoint.save(done, classifier, ema, optimizer)
            bar.set_postfix_str(f"loss {mean_loss:.4f}, test accuracy {accuracy:.4f}")
    bar.close()
    features = [features_of(ema, x) for x in (dataset.x, held_out.x)]
    write_stats(checkpoint.directory, *features, dataset.y, len(dataset.classes))


if __name__ == "__main__":
    configure(main, TrainConfig, __doc__.split("\n\n")[0], sys.argv[1:])
