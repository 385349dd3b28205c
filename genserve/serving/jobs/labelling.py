"""What a classifier is asked: the tasks as a table, and the job of answering one of them."""

import base64
import json
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from genserve import images
from genserve.runs.contracts.labels import LabelsContract
from genserve.sampling.engine import Finished, Sampler
from genserve.sampling.labelling import (
    integrated_gradients,
    labelled,
    probabilities,
    ranked,
    slopes,
    weights,
)
from genserve.serving.jobs.base import Job
from genserve.serving.picture_replies import TYPES, file
from genserve.serving.replies import JSON, Reply

TASKS = {
    "classify": "the likeliest classes of pictures, and is usual",
    "embed": "their features",
    "explain": "which pixels speak for a class",
}
METHODS = {
    "gradient": "the slope of the class's logit at every pixel",
    "integrated": "what every pixel adds to the logit, on the way from a black picture",
}
# digits behind the point in an answer: what another size of the batch changes is less than one in the last
P_DIGITS = 5  # of probabilities
DIGITS = 4  # of features, logits and entropies
NUMBER, LISTED = 3, 15  # of `size`: a number, and a class with its probability, in JSON
BLACK = -1.0  # the picture in which an integrated gradient begins


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a resolved request asks for.

    Args:
        task: one of TASKS.
        x: (n, C, H, W) in [-1, 1], the pictures at the model's size.
        sizes: (W, H) that each had.
        tta: level of test-time augmentation; 0 of an explanation.
        top_k: classes that are named, of `classify`.
        method: of `explain`, one of METHODS.
        steps: of an integrated gradient.
        y: the class to explain of each picture; None for the likeliest.
        format: json, or of the heat maps also png, npy and zip.
        columns, scale: as the client wrote them.
        facts: what else the answer depends on: shown to the client.
    """

    task: str
    x: Tensor = field(repr=False, compare=False)  # a client's pictures belong in no log
    sizes: tuple[tuple[int, int], ...]
    tta: int = 0
    top_k: int = 1
    method: str = ""
    steps: int = 0
    y: tuple[int, ...] | None = None
    format: str = "json"
    columns: int | None = None
    scale: int = 1
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """What the network saw: all on the CPU, n rows each.

    Args:
        logits: (n, n_classes);  features: (n, D), of `classify` and `embed` the mean over views.
        y: (n,) int64, the class that is explained.
        attribution: (n, C, H, W), of `explain`.
        rise: (n,), of an integrated gradient: the logit less that of the black picture.
    """

    logits: Tensor
    features: Tensor
    y: Tensor | None = None
    attribution: Tensor | None = None
    rise: Tensor | None = None


class Labelling(Job):
    """Pictures that are labelled, embedded or explained.

    Args:
        spec: the contract.
    """

    def __init__(self, question: Question, spec: LabelsContract) -> None:
        self.question, self._spec = question, spec
        self.task, self.n = question.task, len(question.x)

    @property
    def nfe(self) -> int:
        """Network evaluations of each picture; a gradient is one."""
        question = self.question
        if self.task != "explain":
            return len(weights(question.tta, self._spec.mirror))
        return 1 + (1 if question.method == "gradient" else 2 + question.steps)

    @property
    def work(self) -> int:
        return self.n * self.nfe

    @property
    def size(self) -> int:
        match self.task:
            case "classify":
                return self.n * self.question.top_k * LISTED
            case "embed":
                return self.n * self._spec.n_features * NUMBER
        return heat_size(self.n, self._spec.shape, self.question.columns, self.question.scale)

    def begin(self, device: torch.device) -> Sampler:
        question, spec = self.question, self._spec
        x = question.x.to(device)
        means = yield from labelled(x, question.tta, spec.mirror)
        result = {"logits": means.logits.cpu(), "features": means.features.cpu()}
        if self.task != "explain":
            return Found(**result)
        likeliest = ranked(means.logits, 1)[1][:, 0]
        y = likeliest if question.y is None else torch.tensor(question.y, device=device)
        result["y"] = y.cpu()
        if question.method == "gradient":
            slope = yield from slopes(x, y)
            return Found(**result, attribution=slope.cpu())
        black = torch.tensor(BLACK, device=device)
        values, rise = yield from integrated_gradients(x, y, black, question.steps)
        return Found(**result, attribution=values.cpu(), rise=rise.cpu())

    def answer(self, ended: Finished) -> Reply:
        question, result = self.question, ended.result
        rows = self._classified(result) if self.task == "classify" else [{} for _ in question.sizes]
        if self.task == "embed":
            rows = [{"features": rounded(row)} for row in result.features]
        headers = {"X-NFE": str(self.nfe)}
        if result.attribution is not None:
            rows = self._explained(result)
            headers["X-Index"] = ",".join(str(row["index"]) for row in rows)
            heat = images.to_pixels(images.heat(question.x, result.attribution))
            pixels = images.enlarge(heat, question.scale)
            if question.format != "json":
                body = file(question.format, pixels, question.columns)
                return Reply(body, TYPES[question.format], headers=headers)
            for row, p in zip(rows, pixels, strict=True):
                row["png"] = base64.b64encode(images.png(p)).decode()
        for row, (width, height) in zip(rows, question.sizes, strict=True):
            row |= {"width": width, "height": height}
        content = {"images": rows, "nfe": self.nfe, "settings": question.facts}
        return Reply(json.dumps(content, allow_nan=False).encode(), JSON, headers=headers)

    def __str__(self) -> str:
        return f"task={self.task} images={self.n} settings={self.question.facts}"

    def _classified(self, result: Found) -> list[dict[str, Any]]:
        """Return what `classify` says of each picture."""
        p = self._probabilities(result)
        values, classes = ranked(p, self.question.top_k)
        entropy = torch.special.entr(p).sum(1)
        rows = []
        for one, ps, ks in zip(rounded(entropy), values.tolist(), classes.tolist(), strict=True):
            top = [self._class(k) | {"probability": round(q, P_DIGITS)} for k, q in zip(ks, ps, strict=True)]
            rows.append(top[0] | {"entropy": one, "top": top})
        return rows

    def _explained(self, result: Found) -> list[dict[str, Any]]:
        """Return what `explain` says of each picture, beside its heat map."""
        assert result.y is not None
        assert result.attribution is not None
        y = result.y.unsqueeze(1)
        p = self._probabilities(result).gather(1, y)[:, 0]
        numbers = {"logit": result.logits.gather(1, y)[:, 0]}
        if result.rise is not None:
            numbers |= {"rise": result.rise, "attributed": result.attribution.double().flatten(1).sum(1)}
        columns = {name: rounded(column) for name, column in numbers.items()}
        return [
            self._class(k)
            | {"probability": round(q, P_DIGITS)}
            | {name: column[row] for name, column in columns.items()}
            for row, (k, q) in enumerate(zip(result.y.tolist(), p.tolist(), strict=True))
        ]

    def _probabilities(self, result: Found) -> Tensor:
        return probabilities(result.logits.double(), self._spec.temperatures[self.question.tta])

    def _class(self, k: int) -> dict[str, Any]:
        return {"label": self._spec.classes[k], "index": k}


def heat_size(n: int, shape: tuple[int, int, int], columns: int | None, scale: int) -> int:
    """Return the pixel values of n heat maps in a grid, for pictures (C, H, W)."""
    _, h, w = shape
    return math.prod(images.sides(n, columns)) * 3 * h * w * scale**2


def rounded(column: Tensor) -> list[float]:
    """Return numbers (n,) as an answer has them, if they are no probabilities."""
    return [round(value, DIGITS) for value in column.tolist()]
