"""Measure quality against evaluations: a Frechet distance for each sampler and number of steps."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genserve.drawing.local import draw, fair_classes, served_model
from genserve.files import parsing, read_json, write_json
from genserve.measure import metrics
from genserve.measure.features import features_of
from genserve.measure.records import digest
from genserve.measure.reference import Reference
from genserve.progress import Progress
from genserve.runs.defaults import spec_of
from genserve.sampling.defaults import Defaults
from genserve.sampling.engine import Call
from genserve.sampling.settings import Setting

SAMPLERS = {
    "DDIM": "ddim:{0}",
    "DDIM, eta 1": "ddim:{0}:eta=1",
    "Heun": "heun:{1}",
    "DPM++": "dpmpp_2m:{0}",
    "DPM++, eta 0.7": "dpmpp_2m:{0}:eta=0.7",
}
HELD_OUT = "held-out images"

Row = dict[str, Any]  # setting, nfe, frechet_distance, and what they depend on


def lines(defaults: Defaults, evaluations: Iterable[int]) -> dict[str, list[str]]:
    """Return the settings to compare, a list for each sampler, with the guidance of the run's serving.json.

    Args:
        defaults: those of the model.
        evaluations: of the network, without guidance; Heun takes the next odd number.
    """
    tuned = [Setting.of(defaults, steps=levels.steps).text(defaults) for levels in defaults.tuned]
    settings = {"tuned": tuned}
    if defaults.sampler != "consistency":
        guidance = defaults.guidance if defaults.guided else 1
        suffix = f":guidance={guidance:g}" if guidance != 1 else ""
        steps = [(nfe, nfe // 2 + 1) for nfe in evaluations]  # Heun evaluates 2 n - 1 times
        named = {name: [text.format(*n) + suffix for n in steps] for name, text in SAMPLERS.items()}
        settings = named | settings
    return {name: line for name, line in settings.items() if line}


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The measured settings of one run.

    Args:
        directory: of the run.
        classifier: run directory of the classifier; its features are compared.
        root: folder of its data set; None for the place in its config.json. If the images are missing, the
            held-out row is of all of them, not of n.
        n: images per setting.
        seed: of the drawn images.
        precision: of the network, fp32 or bf16.
    """

    directory: Path
    classifier: Path
    root: Path | None
    n: int
    seed: int
    precision: str
    device: torch.device

    @property
    def key(self) -> Row:
        """What a row depends on besides its setting."""
        weights = {
            name: digest(directory / "weights.safetensors")
            for name, directory in (("weights", self.directory), ("classifier", self.classifier))
        }
        return {"n": self.n, "seed": self.seed, "precision": self.precision} | weights

    @cached_property
    def reference(self) -> Reference:
        return Reference(self.classifier, self.root, self.device)

    @cached_property
    def network(self) -> Call:
        return served_model(self.directory, self.device, self.precision)[1]

    def rows(self, path: Path, settings: Iterable[str], progress: Progress) -> dict[str, Row]:
        """Return a row for each setting, from the file or else measured and added to it at once.

        Args:
            path: a JSON list of rows; those of other keys stay in it.
            settings: as `Setting.parse` reads them, or HELD_OUT for as many real images.

        Raises:
            ValueError: the file is not such a list, or a text is not a setting of this model.
        """
        kept: list[Row] = read_json(path, list) if path.is_file() else []
        with parsing(path, "a list of measured settings"):
            rows = {row["setting"]: row for row in kept if self.key.items() <= row.items()}
        for text in settings:
            if text not in rows:
                measured = self._held_out() if text == HELD_OUT else self._drawn(text, progress)
                rows[text] = measured | {"setting": text} | self.key
                kept.append(rows[text])
                write_json(path, kept)
        return rows

    def _held_out(self) -> Row:
        images = [x for x, _ in self.reference.held_out(self.n).values()]  # the last set is in fair shares
        return self._distance(images[-1]) if images else dict(self.reference.floor())

    def _drawn(self, text: str, progress: Progress) -> Row:
        spec = spec_of(self.directory)
        setting = Setting.parse(text, spec.defaults)
        y = fair_classes(self.n, self.reference.stats.class_counts) * bool(spec.classes)
        y = y.to(self.device)
        x = draw(self.network, spec, setting, y, self.seed, chunks=progress(text))
        return {"nfe": setting.nfe} | self._distance(x)

    def _distance(self, x: Tensor) -> Row:
        features = metrics.moments(features_of(self.reference.classifier, x))
        return {"frechet_distance": metrics.frechet_between(features, self.reference.stats.train)}
