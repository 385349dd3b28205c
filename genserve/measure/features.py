"""Compute the features of a classifier, and their moments over a data set, for distances between images."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from genserve.files import parsing
from genserve.images import normalise
from genserve.measure import metrics
from genserve.measure.metrics import Moments, moments
from genserve.models.classifier import Classifier
from genserve.progress import Chunks
from genserve.runs.directory import classifier_config, load_classifier
from genserve.runs.tensors import read_weights, write_weights

STATS_FILE = "train_features_stats.safetensors"
CHUNK = 500  # images per forward pass


@torch.no_grad()
def features_of(classifier: Classifier, x: Tensor, chunks: Chunks = iter) -> Tensor:
    """Return the features of images x (N, C, H, W) uint8: (N, n_features), on the CPU."""
    device = classifier.read_out.weight.device
    starts = chunks(range(0, len(x), CHUNK))
    parts = [classifier.features(normalise(x[k : k + CHUNK].to(device))).cpu() for k in starts]
    return torch.cat(parts)


def class_accuracy(classifier: Classifier, features: Tensor, y: Tensor) -> float:
    """Return the share of features (N, D) in which their classifier sees the classes y, (N,).

    Raises:
        ValueError: as `metrics.accuracy`.
    """
    return metrics.accuracy(classifier.logits(features.to(classifier.read_out.weight.device)).cpu(), y)


class Stats(NamedTuple):
    """All that a Frechet distance and its floor need of a data set, if its images are missing."""

    train: Moments  # of the features of the training images
    test: Moments  # of the held-out images
    class_counts: Tensor  # (n_classes,) int64, in the training images


def write_stats(directory: Path, train: Tensor, test: Tensor, y: Tensor, n_classes: int) -> None:
    """Write the moments of training and held-out features, (N, D), and the counts of the classes y, (N,)."""
    tensors = {"class_counts": y.bincount(minlength=n_classes)}
    for name, (n, mean, covariance) in (("train", moments(train)), ("test", moments(test))):
        tensors |= {f"{name}.n": torch.tensor(n), f"{name}.mean": mean, f"{name}.covariance": covariance}
    write_weights(directory / STATS_FILE, tensors)


def read_stats(directory: Path) -> Stats:
    """Return what `write_stats` wrote.

    Raises:
        FileNotFoundError: the run has no such file.
        ValueError: the file is torn, or holds something else.
    """
    path = directory / STATS_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: training/train_classifier.py writes it at its end")
    t = read_weights(path)
    with parsing(path, "the moments of a classifier's features"):
        train, test = (
            Moments(int(t[f"{k}.n"]), t[f"{k}.mean"], t[f"{k}.covariance"]) for k in ("train", "test")
        )
        return Stats(train, test, t["class_counts"])


def load_chooser(directory: Path) -> tuple[Classifier, Stats]:
    """Return a classifier that may choose steps, levels or checkpoints, and its statistics.

    Raises:
        ValueError: it is a judge: a judge that chooses would flatter its choice.
        FileNotFoundError, ValueError: as `load_classifier` and `read_stats`.
    """
    if classifier_config(directory).judge:
        raise ValueError(f"classifier: {directory} is a judge, which chooses nothing; give a classifier-*")
    return load_classifier(directory), read_stats(directory)
