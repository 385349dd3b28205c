"""Draw what each step of training learns from: images, and the noise on them."""

from typing import NamedTuple

import torch
from torch import Tensor

from genserve.data.batches import augmented, batch_indices
from genserve.data.pictures import ImageSet
from genserve.images import normalise
from genserve.learning.config import DenoiserConfig, GeneratorConfig
from genserve.learning.optim import generator
from genserve.learning.ranks import Ranks
from genserve.models.denoiser import training_sigmas


class Noised(NamedTuple):
    """The batch from which a denoiser learns in a step."""

    x_0: Tensor  # (B, C, H, W), data in [-1, 1]
    sigma: Tensor  # (B,)
    y: Tensor  # (B,) int64; the number of classes where the class is hidden
    eps: Tensor  # like x_0, standard normal


class Feed:
    """The batches of a run. Every rank draws the global batch, so that their number changes nothing.

    Args:
        dataset: the training images.
        config: of the program.

    Raises:
        ValueError: the images hold nothing to learn, are too few, or cannot be shared by the ranks.
    """

    def __init__(self, dataset: ImageSet, config: GeneratorConfig, ranks: Ranks) -> None:
        if dataset.x.min() == dataset.x.max():
            raise ValueError("all pixels of all images are equal: there is nothing to learn")
        self.config, self.ranks = config, ranks
        self.x, self.y = dataset.x.to(ranks.device), dataset.y.to(ranks.device)
        self.per_epoch = config.batches(len(dataset), ranks)
        self.total = config.epochs * self.per_epoch  # steps

    def images(self, step: int) -> tuple[Tensor, Tensor, torch.Generator]:
        """Return x_0 (B, C, H, W) and y (B,) of the global batch, and the generator for the rest."""
        config, device = self.config, self.ranks.device
        rng = generator(config.seed, step, device)
        picked = batch_indices(len(self.x), config.batch_size, self.per_epoch, config.seed, step)
        picked = picked.to(device)
        return augmented(normalise(self.x[picked]), config.augment, rng), self.y[picked], rng

    def noised(self, step: int, config: DenoiserConfig, no_class: int) -> tuple[Noised, torch.Generator]:
        """Return the global batch at its noise levels, and the generator for whatever else is random.

        Args:
            no_class: the y that hides a class, which is the number of classes; 0 for a model without them.
        """
        x_0, y, rng = self.images(step)
        eps = torch.randn(x_0.shape, generator=rng, device=x_0.device)
        u = torch.rand(len(x_0), generator=rng, device=x_0.device)
        sigma = training_sigmas(u, config.p_mean, config.p_std)
        hidden = torch.rand(len(x_0), generator=rng, device=x_0.device) < config.label_dropout
        y = torch.where(hidden, no_class, y) if no_class else torch.zeros_like(y)
        return Noised(x_0, sigma, y, eps), rng
