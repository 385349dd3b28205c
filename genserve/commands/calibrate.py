"""Fit the temperatures of a classifier that is served, and measure it on test images.

    genserve calibrate --run weights/labels-cifar10
    genserve calibrate --run runs/labels-mnist --write=false

The temperatures are fitted on the training images that the run has held out, by the least negative
log-likelihood, one for each level of test-time augmentation. They go into the run's serving.json with what
the test images, by which nothing was chosen, say about them:

    accuracy   share of the test images that are labelled rightly
    NLL        mean of -ln p of the right class, at temperature 1 and at the fitted temperature
    ECE        mean distance of confidence and accuracy in 15 intervals, at both temperatures

Below the table are the classes that are right least often, and what they are taken for.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from genserve.cli import config_of, plain_errors
from genserve.data.pictures import DataConfig, ImageSet, load_images, set_aside
from genserve.files import parsing, read_json, write_json
from genserve.images import normalise
from genserve.learning.identity import described
from genserve.measure import calibration, metrics
from genserve.models.labels import Airbench, LabelsConfig
from genserve.places import locate, located
from genserve.precision import PRECISIONS
from genserve.runs import directory as runs
from genserve.sampling.labelling import TTA, merged, probabilities, views, weights

CHUNK = 100  # pictures per forward pass
WEAKEST = 3  # classes that are printed


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What to calibrate.

    Args:
        run: run directory of a classifier that was trained with images held out.
        data: folder of the data set, if not the one that the run has learnt from.
        precision: fp32 or bf16.
        write: put temperatures and quality into the run's serving.json; otherwise they are only printed.
        threads: CPU threads; 0 is torch's own choice.
    """

    run: Path = Path("weights/labels-cifar10")
    data: str = ""
    precision: str = "fp32"
    write: bool = True
    threads: int = 0

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be {' or '.join(PRECISIONS)}, got {self.precision!r}")
        locate(self, "run")


def images_of(config: Calibration) -> tuple[ImageSet, ImageSet]:
    """Return the images that the run has held out, and the test images.

    Raises:
        ValueError: the run has held out none, or the data are not those that it has learnt from.
        FileNotFoundError, OSError: as `load_images`.
    """
    stored = runs.read_config(config.run)
    with parsing(config.run / "config.json", "the configuration of a training run"):
        train, before = stored["train"], stored["held_out"]["sha256"]
        data = train["data"] | {"download": False}
        hold_out, seed = train.get("hold_out", 0), train["seed"]
    if not hold_out:
        raise ValueError(f"{config.run} has held out no images to fit on: train it with --hold-out 2000")
    learnt = DataConfig(**data | {"root": config.data or str(located(data["root"]))})
    _, kept = set_aside(load_images(learnt, "train"), hold_out, seed)
    if described(kept)["sha256"] != before:
        raise ValueError(f"the images in {learnt.root} are not those that {config.run} has held out")
    return kept, load_images(learnt, "test")


@torch.no_grad()
def view_logits(network: Airbench, images: ImageSet, mirror: bool, title: str) -> Tensor:
    """Return the logits of all views of each picture, (N, k, n_classes)."""
    top = max(TTA)
    parts = [network(views(normalise(x), top, mirror))[0] for x in tqdm(images.x.split(CHUNK), title)]
    logits: Tensor = torch.cat(parts).unflatten(0, (-1, len(weights(top, mirror))))
    return logits


def at_level(logits: Tensor, tta: int, mirror: bool) -> Tensor:
    """Return the mean logits of a level, (N, n_classes), of those of all views."""
    return merged(logits[:, : len(weights(tta, mirror))].flatten(0, 1), tta, mirror)


def measured(logits: Tensor, y: Tensor, temperature: float) -> dict[str, float]:
    """Return accuracy, negative log-likelihood and calibration error of logits (N, n_classes)."""
    return {
        "accuracy": metrics.accuracy(logits, y),
        "nll": calibration.negative_log_likelihood(logits, y, temperature),
        "ece": calibration.expected_calibration_error(probabilities(logits, temperature), y),
    }


def weakest(logits: Tensor, y: Tensor, classes: tuple[str, ...]) -> list[str]:
    """Return a line for each of the classes that are right least often, with their commonest labels."""
    counts = calibration.confusion(logits.argmax(1), y, len(classes)).double()
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    lines = []
    for k in shares.diagonal().argsort(stable=True)[:WEAKEST].tolist():
        order = shares[k].argsort(descending=True, stable=True).tolist()
        others = [j for j in order if j != k and shares[k, j]][:3]
        taken = ", ".join(f"{classes[j]} {100 * shares[k, j]:.1f} %" for j in others)
        lines.append(f"{classes[k]}: right {100 * shares[k, k]:.1f} %; taken for {taken or 'nothing else'}")
    return lines


def main(config: Calibration) -> None:
    """Fit, measure, print and write."""
    if config.threads:
        torch.set_num_threads(config.threads)
    model = runs.config_of(config.run)
    if not isinstance(model, LabelsConfig):
        raise ValueError(f"{config.run} is a run of the family {model.family}, must be of the family labels")
    network = runs.load_model(config.run).to(PRECISIONS[config.precision])
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert isinstance(network, Airbench)
    kept, test = images_of(config)
    fitting = view_logits(network, kept, model.mirror, "held-out images")
    testing = view_logits(network, test, model.mirror, "test images")
    print(f"{len(kept)} images held out, {len(test)} test images, {config.precision}")
    print("tta  views  temperature  accuracy   NLL at 1    fitted   ECE at 1    fitted")
    rows: list[dict[str, Any]] = []
    for tta in TTA:
        temperature = round(calibration.fitted_temperature(at_level(fitting, tta, model.mirror), kept.y), 4)
        logits = at_level(testing, tta, model.mirror)
        before, after = (measured(logits, test.y, t) for t in (1.0, temperature))
        rows.append({"temperature": temperature} | after)
        print(
            f"{tta:3}{len(weights(tta, model.mirror)):7}{temperature:13.4f}{after['accuracy']:10.4f}"
            f"{before['nll']:11.4f}{after['nll']:10.4f}{before['ece']:11.4f}{after['ece']:10.4f}"
        )
    for line in weakest(at_level(testing, 0, model.mirror), test.y, model.classes):
        print(line)
    if config.write:
        path = config.run / "serving.json"
        serving = read_json(path) if path.is_file() else {}
        quality: dict[str, Any] = {"images": len(test)}
        quality |= {name: [round(row[name], 4) for row in rows] for name in ("accuracy", "nll", "ece")}
        write_json(path, serving | {"temperatures": [r["temperature"] for r in rows], "quality": quality})


def command_line(argv: list[str]) -> Calibration:
    """Return what the flags ask for; dashes and underscores are alike."""
    return config_of(Calibration, __doc__, argv)


def run(argv: list[str]) -> None:
    """Do what the flags ask for; a mistake ends the program in one line."""
    with plain_errors():
        main(command_line(argv))
