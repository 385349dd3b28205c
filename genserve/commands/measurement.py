"""Measure a set of images for `genserve evaluate`: a row of its table, and pictures of it."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genserve import images
from genserve.files import write_atomic
from genserve.measure import metrics
from genserve.measure.inception import (
    WIDTH,
    inception_features,
    load_inception,
    read_statistics,
    write_statistics,
)
from genserve.measure.reference import Judge, Reference, Space
from genserve.measure.sources import Images
from genserve.progress import Progress


class Measurement:
    """Measures images against a reference.

    Args:
        reference: the training set, in the features of a classifier.
        judge: a second classifier, or None.
        inception_weights: the file of Inception; None leaves its numbers out.
        against: file of statistics to compare with, of Inception's features if it is used; or None.
        device: that Inception runs on.
        progress: shows progress.

    Raises:
        OSError, ValueError: as `load_inception` and `read_statistics`.
    """

    def __init__(
        self,
        reference: Reference,
        judge: Judge | None,
        inception_weights: Path | None,
        against: Path | None,
        device: torch.device,
        progress: Progress,
    ) -> None:
        self.reference, self.judge = reference, judge
        self._inception = self._against = None
        if inception_weights is not None:
            network = load_inception(inception_weights).to(device)
            self._inception = Space(partial(inception_features, network), reference.real, progress=progress)
        if against is not None:
            self._against = read_statistics(
                against, WIDTH if self._inception else reference.classifier.n_features
            )

    def row(self, given: Images, stats_file: Path | None = None) -> dict[str, Any]:
        """Return the numbers of a set of images; write its statistics to a file if one is given."""
        x, features = given.x, self.reference.space.features(given.x)
        row = {"name": given.name} | given.known | self.reference.measure(x, given.y, features)
        row |= self.judge.measure(x) if self.judge else {}
        if self._inception is not None:
            features = self._inception.features(x)
            numbers = self._inception.measure(features)
            row |= {f"inception_{key}": value for key, value in numbers.items()}
        if self._against is not None:
            row["against"] = metrics.frechet_between(metrics.moments(features), self._against)
        if stats_file is not None:
            stats_file.parent.mkdir(parents=True, exist_ok=True)
            write_statistics(stats_file, metrics.moments(features))
        return row


def write_pictures(stem: Path, x: Tensor, y: Tensor | None, reference: Reference) -> None:
    """Write STEM-samples.png, a column per class, and STEM-neighbours.png, images left of their nearest."""

    def save(name: str, pictures: Tensor, columns: int) -> None:
        sheet = images.grid(pictures.permute(0, 2, 3, 1).numpy(), columns)
        write_atomic(Path(f"{stem}-{name}.png"), images.png(images.enlarge(sheet, 2)))

    by_class = [x[y == k][:8] for k in range(10)] if y is not None else []
    rows = min(map(len, by_class), default=0)
    save("samples", torch.stack([k[:rows] for k in by_class], dim=1).flatten(0, 1) if rows else x[:80], 10)
    if reference.train is not None:
        save("neighbours", torch.cat([x[:40], reference.nearest(x[:40])[1]], dim=3), 5)
