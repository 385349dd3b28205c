"""Train a classifier: the one whose features measure the generators, or the one that is served.

    python training/train_classifier.py --config training/configs/classifier-mnist.yaml
    python training/train_classifier.py --config training/configs/labels-cifar10.yaml
    python training/train_classifier.py --config ... --epochs 1 --max-batches-per-epoch 100     # a quick look

Beside the weights of one that measures it writes train_features_stats.safetensors: the moments of the
features of training and of held-out images, all that a Frechet distance needs. One that is served, which
`net.blocks: airbench` asks for, is calibrated afterwards by `genserve calibrate`. Run it again after a kill
and it goes on where it was; docs/training.md says what may change then.
"""

import math
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.swa_utils import update_bn
from tqdm import tqdm

from genserve.cli import configure
from genserve.data.pictures import ImageSet, load_images, set_aside
from genserve.images import normalise
from genserve.learning.checkpoint import Checkpoint, held
from genserve.learning.classifying import (
    Batches,
    Network,
    TrainConfig,
    logits_of,
    model_config,
    optimizer_of,
    rate_of,
)
from genserve.learning.optim import averaged, look_ahead, placed, precision_of, set_learning_rate, update_ema
from genserve.learning.ranks import join_ranks
from genserve.measure import metrics
from genserve.measure.features import CHUNK, features_of, write_stats
from genserve.models.classifier import Classifier, Whitening
from genserve.models.labels import Airbench

STATISTICS = 8  # batches from which BatchNorm's last means and variances are computed


class EpochRecorder:
    """Measures the averaged weights after each epoch, and writes metrics and a checkpoint; shows a bar.

    Args:
        start: the steps done before.
    """

    def __init__(
        self, config: TrainConfig, checkpoint: Checkpoint, batches: Batches, held_out: ImageSet, start: int
    ) -> None:
        self.config, self.checkpoint, self.batches, self.held_out = config, checkpoint, batches, held_out
        self.autocast = precision_of(config.precision, batches.device)
        self.bar = tqdm(total=batches.total, initial=start, unit="step", dynamic_ncols=True)
        self.clock, self.losses = time.perf_counter(), torch.zeros((), device=batches.device)

    def count(self, loss: Tensor) -> None:
        """Count a step as done; its loss is a scalar."""
        self.losses += loss.detach()
        self.bar.update()

    def end_epoch(
        self, step: int, classifier: Network, ema: Network, optimizer: torch.optim.Optimizer
    ) -> None:
        """Give the averaged weights statistics of their own, measure and save them.

        Raises:
            FloatingPointError: the mean loss of the epoch is not finite.
            OSError: a file cannot be written.
        """
        config, batches, done = self.config, self.batches, step + 1
        mean_loss = self.losses.item() / batches.per_epoch
        if not math.isfinite(mean_loss):
            raise FloatingPointError(f"loss {mean_loss} at step {done}: try --lr below {config.lr}")
        # BatchNorm's means and variances of the latest weights do not suit the EMA of weights
        if config.average == "ema":
            update_bn((batches(step - k)[0] for k in range(min(STATISTICS, batches.per_epoch))), ema)
        with self.autocast():
            logits = measured_logits(ema, self.held_out, batches.device)
        accuracy = metrics.accuracy(logits.cpu(), self.held_out.y)
        speed = batches.per_epoch * config.batch_size / (time.perf_counter() - self.clock)
        self.clock, self.losses = time.perf_counter(), torch.zeros_like(self.losses)
        measured = "held_out_accuracy" if config.hold_out else "test_accuracy"
        self.checkpoint.record(done, loss=mean_loss, **{measured: accuracy}, images_per_s=round(speed, 1))
        self.checkpoint.save(done, classifier, ema, optimizer)
        self.bar.set_postfix_str(f"loss {mean_loss:.4f}, {measured.replace('_', ' ')} {accuracy:.4f}")


@torch.no_grad()
def measured_logits(network: Network, images: ImageSet, device: torch.device) -> Tensor:
    """Return the logits of images, (N, n_classes)."""
    if isinstance(network, Classifier):
        return network.logits(features_of(network, images.x).to(device))
    return torch.cat([network(normalise(x.to(device)))[0] for x in images.x.split(CHUNK)])


# ---- the loop ----------------------------------------------------------------------------------------------


def main(config: TrainConfig) -> None:
    """Train, from the start or from the last epoch done."""
    if config.threads:
        torch.set_num_threads(config.threads)
    device = join_ranks(config.device).device
    with held(Path(config.output) / config.name):
        fit(config, device)


def fit(config: TrainConfig, device: torch.device) -> None:
    """Train, and write the moments of the features; raises FloatingPointError if the run diverges."""
    dataset = load_images(config.data, "train")
    if config.hold_out:
        dataset, held_out = set_aside(dataset, config.hold_out, config.seed)
    else:
        held_out = load_images(config.data, "test")
    batches, model = Batches(config, dataset, device), model_config(config, dataset)
    torch.manual_seed(config.seed)  # of the initial weights
    classifier = placed(model.build(), device)
    if isinstance(classifier, Airbench):
        classifier.learn_patches(normalise(batches.x[:5000]))
        classifier.learn_stem(config.whitening_epochs > 0)
    elif isinstance(stem := classifier.body[0], Whitening):
        stem.learn(normalise(batches.x[:5000]))
    ema, optimizer = averaged(classifier), optimizer_of(classifier, config)
    checkpoint = Checkpoint(config, model, {"data": dataset, "held_out": held_out}, first=True)
    start: int = checkpoint.resume(classifier, ema, optimizer, batches.total).get("step", 0)
    parameters = sum(p.numel() for p in classifier.parameters()) / 1e6
    tqdm.write(f"{checkpoint.directory}: {len(dataset)} images {model.shape}, {parameters:.2f} M parameters")
    recorder = EpochRecorder(config, checkpoint, batches, held_out, start)
    autocast = precision_of(config.precision, device)

    for step in range(start, batches.total):
        set_learning_rate(optimizer, rate_of(config, step, batches.total))
        if isinstance(classifier, Airbench):
            classifier.learn_stem(step < config.whitening_epochs * batches.per_epoch)
        x, y = batches(step)
        with autocast():
            loss = F.cross_entropy(logits_of(classifier, x), y, label_smoothing=config.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if config.average == "lookahead":
            look_ahead(ema, classifier, step + 1, batches.total)
        else:
            update_ema(ema, classifier, config.ema_decay, step)
        recorder.count(loss)
        if (step + 1) % batches.per_epoch == 0:
            recorder.end_epoch(step, classifier, ema, optimizer)
    recorder.bar.close()
    if isinstance(ema, Classifier):
        train, test = (features_of(ema, images.x) for images in (dataset, held_out))
        write_stats(checkpoint.directory, train, test, dataset.y, len(dataset.classes))


if __name__ == "__main__":
    configure(main, TrainConfig, __doc__.split("\n\n")[0], sys.argv[1:])
