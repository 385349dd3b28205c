"""Fit the temperature of a classifier, and compare its probabilities with how often it is right."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from genserve.sampling.labelling import probabilities

BINS = 15  # of the expected calibration error, as Guo et al. 2017
RANGE = (1e-3, 1e3)  # of temperatures


def negative_log_likelihood(logits: Tensor, y: Tensor, temperature: float = 1.0) -> float:
    """Return the mean of -ln p of the right class, in nats, for logits (N, n_classes) and y (N,)."""
    return F.cross_entropy(logits.double() / temperature, y).item()


def fitted_temperature(logits: Tensor, y: Tensor) -> float:
    """Return the temperature at which the negative log-likelihood is least.

    It is convex in 1 / temperature, with the slope E_p[logit] - logit of the right class, on average, whose
    zero is bisected. If every picture is labelled rightly, the least is at 0: the answer stays within RANGE.

    Source: Guo et al. 2017 (arXiv:1706.04599), section 4.2.

    Args:
        logits: (N, n_classes) of pictures that were not trained on;  y: (N,) their classes.
    """
    x = logits.double()
    right = x.gather(1, y.unsqueeze(1)).mean().item()
    low, high = (math.log(bound) for bound in RANGE)
    for _ in range(60):
        middle = (low + high) / 2
        p = probabilities(x, math.exp(middle))
        too_hot = (p * x).sum(1).mean().item() < right  # colder makes the right logit more probable
        low, high = (low, middle) if too_hot else (middle, high)
    return math.exp((low + high) / 2)


def expected_calibration_error(p: Tensor, y: Tensor) -> float:
    """Return the mean distance of confidence and accuracy over BINS equal intervals of confidence, 0 to 1.

    Source: Guo et al. 2017, eq. (3).

    Args:
        p: (N, n_classes) probabilities;  y: (N,) classes.
    """
    confidence, label = p.double().max(1)
    bins = (confidence * BINS).ceil().long().clamp(1, BINS) - 1  # (k / BINS, (k + 1) / BINS]
    zeros = torch.zeros(BINS, dtype=torch.double)
    gap = zeros.index_add(0, bins, confidence - (label == y).double())
    return gap.abs().sum().item() / len(y)


def confusion(label: Tensor, y: Tensor, n_classes: int) -> Tensor:
    """Return how often class i was labelled j, (n_classes, n_classes) int64; labels and y are (N,)."""
    counts = torch.bincount(y * n_classes + label, minlength=n_classes**2)
    return counts.view(n_classes, n_classes)
