"""Ask a classifier: views of a picture and their mean, calibrated probabilities, explanations by gradients.

A question is a generator, like a sampler: it yields queries, is sent answers and returns a result.

    Pictures   x -> logits (N, n_classes), features (N, D)
    Chosen     x, y -> gradient of each picture's logit of class y with respect to x, (N, C, H, W)
"""

from collections.abc import Generator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

TTA = (0, 1, 2)  # levels of test-time augmentation: none; mirrored; mirrored and moved


class Pictures(NamedTuple):
    """Pictures whose logits and features are asked for."""

    x: Tensor  # (N, C, H, W) in [-1, 1]


class Chosen(NamedTuple):
    """Pictures, and for each the class whose logit is differentiated."""

    x: Tensor  # (N, C, H, W) in [-1, 1]
    y: Tensor  # (N,) int64


class Labelled(NamedTuple):
    """What a classifier sees in pictures."""

    logits: Tensor  # (N, n_classes)
    features: Tensor  # (N, D)


class Attributed(NamedTuple):
    """What each value of a picture adds to a logit."""

    values: Tensor  # (N, C, H, W); their sum is `rise` but for the error of the integral
    rise: Tensor  # (N,), the logit of the picture less that of the baseline


# ---- test-time augmentation --------------------------------------------------------------------------------


def weights(tta: int, mirror: bool) -> tuple[float, ...]:
    """Return the weight of each view of a picture, 1 in sum: 1, 2 or 6 views; without a mirror 1, 1 or 3.

    Raises:
        ValueError: tta is none of TTA.
    """
    if tta not in TTA:
        raise ValueError(f"tta must be one of {', '.join(map(str, TTA))}, got {tta}")
    crops = (0.5, 0.25, 0.25) if tta == 2 else (1.0,)
    return tuple(w / 2 for w in crops for _ in range(2)) if tta and mirror else crops


def views(x: Tensor, tta: int, mirror: bool) -> Tensor:
    """Return the views of each picture, those of one picture in succession: (N, C, H, W) -> (N k, C, H, W).

    They are the picture, and at level 2 the picture moved by one pixel down and right, and up and left, with
    its border mirrored; each is followed by its own mirror image if `mirror`.

    Source: Jordan 2024 (arXiv:2404.00498), section 3.5, "multi-crop evaluation".

    Args:
        tta: a level, k = len(weights(tta, mirror)).
        mirror: a mirrored picture shows the same.

    Raises:
        ValueError: as `weights`.
    """
    crops = [x]
    if tta == 2:
        wide = F.pad(x, (1, 1, 1, 1), "reflect")
        crops += [wide[:, :, :-2, :-2], wide[:, :, 2:, 2:]]
    if tta and mirror:
        crops = [view for crop in crops for view in (crop, crop.flip(-1))]
    assert len(crops) == len(weights(tta, mirror))
    return torch.stack(crops, dim=1).flatten(0, 1)


def merged(values: Tensor, tta: int, mirror: bool) -> Tensor:
    """Return the weighted mean over the views of each picture: (N k, D) -> (N, D)."""
    share = weights(tta, mirror)
    columns = values.unflatten(0, (-1, len(share))).unbind(1)
    total = torch.zeros_like(columns[0])
    for w, column in zip(share, columns, strict=True):  # one after the other: the same bits for any N
        total = total + w * column
    return total


def labelled(x: Tensor, tta: int, mirror: bool) -> Generator[Pictures, tuple[Tensor, Tensor], Labelled]:
    """Return logits and features of pictures (N, C, H, W), the mean over views; one query of N k items."""
    logits, features = yield Pictures(views(x, tta, mirror))
    return Labelled(merged(logits, tta, mirror), merged(features, tta, mirror))


def probabilities(logits: Tensor, temperature: float) -> Tensor:
    """Return softmax(logits / temperature), like logits.

    Source: Guo et al. 2017 (arXiv:1706.04599), section 4.2, "temperature scaling".
    """
    return (logits / temperature).softmax(-1)


def ranked(p: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest probabilities of each row, and their classes, (N, k); a tie keeps their order."""
    values, classes = p.sort(dim=-1, descending=True, stable=True)
    return values[:, :k], classes[:, :k]


# ---- explanations ------------------------------------------------------------------------------------------


def slopes(x: Tensor, y: Tensor) -> Generator[Chosen, Tensor, Tensor]:
    """Return the gradient of each picture's logit of class y with respect to its pixels, like x.

    Source: Simonyan et al. 2014 (arXiv:1312.6034), section 3.
    """
    gradient = yield Chosen(x, y)
    return gradient


def integrated_gradients(
    x: Tensor, y: Tensor, baseline: Tensor, steps: int
) -> Generator[Pictures | Chosen, tuple[Tensor, Tensor] | Tensor, Attributed]:
    """Return what each value of a picture adds to its logit of class y, along the line from a baseline.

    The integral is the mean over the middles of `steps` equal parts of the line; two queries of N (steps + 2)
    items in all.

    Source: Sundararajan et al. 2017 (arXiv:1703.01365), eq. (1), and proposition 1 (completeness: the values
    add up to the rise of the logit).

    Args:
        x: (N, C, H, W) in [-1, 1];  y: (N,) int64.
        baseline: broadcasts to x: where the line begins.
        steps: at least 1.
    """
    start = baseline.expand_as(x)
    logits, _ = yield Pictures(torch.cat([x, start]))
    end, begin = logits.gather(1, y.repeat(2).unsqueeze(1)).view(2, -1)
    at = (torch.arange(steps, device=x.device) + 0.5) / steps
    line = start.unsqueeze(1) + at.view(-1, 1, 1, 1) * (x - start).unsqueeze(1)  # (N, steps, C, H, W)
    gradient = yield Chosen(line.flatten(0, 1), y.repeat_interleave(steps))
    assert isinstance(gradient, Tensor)
    mean = torch.zeros_like(x)
    for column in gradient.unflatten(0, (-1, steps)).unbind(1):
        mean = mean + column / steps
    return Attributed((x - start) * mean, end - begin)
