"""Measure how far generated images are from real ones, between their features (N, D) of any network.

    Frechet distance       between Gaussians fitted to both sets: one number for everything, 0 is best
    kernel distance        between their moments up to the third; unbiased, so that few images are enough
    precision, density     the share of generated images that lie among real ones
    recall, coverage       the share of real images that lie among generated ones
    nearest                the real image closest to a generated one: is it a copy?

A number means something only beside its floor: the same number of held-out real images, as many of them.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from genserve.progress import Chunks

K = 5  # neighbours in a neighbourhood, as Naeem et al. 2020
CHUNK = 256  # rows of a distance matrix held at once: 60 MB against 60,000 images


class Moments(NamedTuple):
    """Mean and covariance of a set of features, for Frechet distances."""

    n: int  # number of images, 0 if it is not known
    mean: Tensor  # (D,) float64
    covariance: Tensor  # (D, D) float64, unbiased


def moments(features: Tensor) -> Moments:
    """Return mean and covariance of features (N, D), in float64.

    Raises:
        ValueError: the features are not a matrix, have fewer than two rows, or hold NaN or infinity.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"need features (N, D) with N at least 2, got {tuple(features.shape)}")
    if not features.isfinite().all():
        raise ValueError("the features hold NaN or infinity")
    x = features.double()
    return Moments(len(x), x.mean(0), torch.cov(x.T).reshape(x.shape[1], x.shape[1]))


def root(covariance: Tensor) -> Tensor:
    """Return the symmetric square root of a positive semidefinite (D, D); rounding below 0 counts as 0."""
    values, vectors = torch.linalg.eigh(covariance)
    result: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return result


def frechet_between(a: Moments, b: Moments) -> float:
    """Return |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)) for covariances A and B.

    tr (A B)^(1/2) is the sum of the singular values of A^(1/2) B^(1/2), so symmetric roots are enough.

    Raises:
        ValueError: the features have different widths.

    Source: Dowson & Landau 1982, eq. (4); Heusel et al. 2017 (arXiv:1706.08500), eq. (6).
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"features of {len(a.mean)} and of {len(b.mean)} dimensions cannot be compared")
    means = (a.mean - b.mean).square().sum()
    cross = torch.linalg.svdvals(root(a.covariance) @ root(b.covariance)).sum()
    return max(0.0, float(means + a.covariance.trace() + b.covariance.trace() - 2 * cross))


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """Return the Frechet distance between Gaussians fitted to features (N, D) and (M, D), in float64.

    With few images it is too large, by about a constant / N: compare equal counts. Raises as `moments`.
    """
    return frechet_between(moments(features_a), moments(features_b))


# ---- kernel distance ---------------------------------------------------------------------------------------


def mean_kernel(a: Tensor, b: Tensor | None = None, chunks: Chunks = iter) -> float:
    """Return the mean of (x . y / D + 1)^3 over the pairs of a row x of a (N, D) and a row y of b (M, D).

    Without b the mean is over the pairs of two different rows of a. The sums of rows are added in float64.

    Source: Binkowski et al. 2018 (arXiv:1801.01401), section 4.
    """
    others = a if b is None else b
    total = torch.zeros((), dtype=torch.float64, device=a.device)
    for start in chunks(range(0, len(a), CHUNK)):
        k = (a[start : start + CHUNK] / a.shape[1] @ others.T).add_(1).pow_(3)
        if b is None:
            k[range(len(k)), range(start, start + len(k))] = 0
        total += k.sum(1).sum(dtype=torch.float64)
    return total.item() / (len(a) * (len(others) - (b is None)))


def kernel_distance(
    real: Tensor, generated: Tensor, real_kernel: float | None = None, chunks: Chunks = iter
) -> float:
    """Return the squared maximum mean discrepancy of generated (M, D) and real (N, D).

    It is the unbiased estimate from all pairs, and may fall below 0 by chance. The literature's mean over
    random subsets of 1,000 images estimates the same number with more noise.

    Args:
        real_kernel: `mean_kernel(real)`, if it is known already.
        chunks: shows progress over the generated images.

    Raises:
        ValueError: the features have different widths, or one set has fewer than two.

    Source: Gretton et al. 2012 (Journal of Machine Learning Research 13), eq. (3), with the kernel of
    Binkowski et al. 2018 (arXiv:1801.01401).
    """
    if real.shape[1] != generated.shape[1]:
        raise ValueError(
            f"features of {real.shape[1]} and of {generated.shape[1]} dimensions cannot be compared"
        )
    if len(real) < 2 or len(generated) < 2:
        raise ValueError(f"need at least 2 of each, got {len(real)} and {len(generated)}")
    if real_kernel is None:
        real_kernel = mean_kernel(real)
    return real_kernel + mean_kernel(generated) - 2 * mean_kernel(generated, real, chunks)


# ---- neighbourhoods ----------------------------------------------------------------------------------------


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return |a_i - b_j|^2, (N, M), at least 0, for a (N, D) and b (M, D) around a common centre."""
    cross = a @ b.T
    return cross.mul_(-2).add_(a.square().sum(1, keepdim=True)).add_(b.square().sum(1)).clamp_(min=0)


def radii(features: Tensor, k: int = K, chunks: Chunks = iter) -> Tensor:
    """Return the squared distance of each row to its k-th nearest other row, (N,).

    Raises:
        ValueError: k is not in 1 to N - 1.
    """
    n = len(features)
    if not 1 <= k < n:
        raise ValueError(f"k must be in 1 to {n - 1}, the other images, got {k}")
    x = features - features.mean(0)
    parts = []
    for start in chunks(range(0, n, CHUNK)):
        d = squared_distances(x[start : start + CHUNK], x)
        d[range(len(d)), range(start, start + len(d))] = torch.inf  # not its own neighbour
        parts.append(d.topk(k, largest=False).values[:, -1])
    return torch.cat(parts)


class Manifolds(NamedTuple):
    """Shares from 0 to 1 (density may exceed 1); compare them with those of held-out images, not with 1."""

    precision: float  # generated images in the neighbourhood of some real image
    recall: float  # real images in the neighbourhood of some generated image
    density: float  # mean number of real neighbourhoods around a generated image, over k
    coverage: float  # real images with a generated image in their neighbourhood


def manifolds(
    real: Tensor, generated: Tensor, k: int = K, real_radii: Tensor | None = None, chunks: Chunks = iter
) -> Manifolds:
    """Return precision, recall, density and coverage of generated (M, D) against real (N, D).

    Args:
        k: the neighbourhood of an image reaches to its k-th nearest neighbour in its own set.
        real_radii: `radii(real, k)`, (N,), if it is known already.
        chunks: shows progress over the real images.

    Raises:
        ValueError: k is not in 1 to min(N, M) - 1.

    Source: Kynkaanniemi et al. 2019 (arXiv:1904.06991), eqs. (1) and (2); Naeem et al. 2020
    (arXiv:2002.09797), section 3.
    """
    if real_radii is None:
        real_radii = radii(real, k)
    generated_radii = radii(generated, k)
    centre = real.mean(0)
    x, z = real - centre, generated - centre
    n_around = torch.zeros(len(z), dtype=torch.long, device=z.device)  # real neighbourhoods around each image
    recalled = covered = 0
    for start in chunks(range(0, len(x), CHUNK)):
        d = squared_distances(x[start : start + CHUNK], z)
        inside = d <= real_radii[start : start + CHUNK, None]
        n_around += inside.sum(0)
        covered += int(inside.any(1).sum())
        recalled += int((d <= generated_radii).any(1).sum())
    return Manifolds(
        precision=(n_around > 0).double().mean().item(),
        recall=recalled / len(x),
        density=n_around.double().mean().item() / k,
        coverage=covered / len(x),
    )


def nearest(queries: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance of queries (M, D) to the nearest of reference (N, D), and its index, both (M,)."""
    centre = reference.mean(0)
    reference = reference - centre
    starts = range(0, len(queries), CHUNK)
    parts = [squared_distances(queries[k : k + CHUNK] - centre, reference).min(1) for k in starts]
    return torch.cat([p.values for p in parts]).sqrt(), torch.cat([p.indices for p in parts])


# ---- classes -----------------------------------------------------------------------------------------------


def accuracy(logits: Tensor, y: Tensor) -> float:
    """Return the share of images with the largest of their logits, (B, n_classes), at their class y, (B,).

    Raises:
        ValueError: there is no image, or not one class for each.
    """
    if not len(y) or len(logits) != len(y):
        raise ValueError(f"need one class for each image, got {len(logits)} images and {len(y)} classes")
    return (logits.argmax(1) == y).double().mean().item()
