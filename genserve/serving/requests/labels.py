"""What a client may ask of a classifier; docs/api.md is made from this."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from genserve.runs.contracts.labels import LabelsContract
from genserve.sampling.labelling import TTA
from genserve.serving.fields import BadRequest, field
from genserve.serving.jobs.base import Job
from genserve.serving.jobs.labelling import METHODS, TASKS, Labelling, Question, heat_size
from genserve.serving.limits import SAMPLES_MAX
from genserve.serving.requests.base import ALWAYS, Request
from genserve.serving.requests.grids import class_index
from genserve.serving.uploads import FORMATS, resized
from genserve.serving.values import Count, Label, Pictures, Switch

# In all pictures of one request: up to a third of a second of a core, in which no other request is let in.
PIXELS_SENT_MAX = 2**22
STEPS = 32  # of an integrated gradient, if a client says nothing

# What an answer in KServe's second protocol can consist of, n requests of k pictures each.
OUTPUTS = {
    "label": ("BYTES", "[n, k]", "the name of each picture's class"),
    "index": ("INT64", "[n, k]", "the index of its class"),
    "probability": ("FP64", "[n, k]", "of that class"),
    "entropy": ("FP64", "[n, k]", "of the task `classify`: nats"),
    "top_label": ("BYTES", "[n, k, top_k]", "of the task `classify`: the names of the likeliest classes"),
    "top_index": ("INT64", "[n, k, top_k]", "their indices"),
    "top_probability": ("FP64", "[n, k, top_k]", "their probabilities, falling"),
    "features": ("FP64", "[n, k, n_features]", "of the task `embed`"),
    "logit": ("FP64", "[n, k]", "of the task `explain`: of the class"),
    "rise": ("FP64", "[n, k]", "of `integrated`: the logit less that of a black picture"),
    "attributed": ("FP64", "[n, k]", "of `integrated`: the sum of what all pixels add"),
    "png": ("BYTES", "[n, k]", "of the task `explain`: each heat map, a PNG in base64"),
    "pixels": ("UINT8", "[n, k, H, W, 3]", "the heat maps, with `format` npy"),
    "file": ("BYTES", "[n]", "the heat maps in base64, with `format` png or zip"),
    "width": ("INT64", "[n, k]", "of the picture as it was sent"),
    "height": ("INT64", "[n, k]", "of the picture as it was sent"),
    "nfe": ("INT64", "[n]", "network evaluations of each picture"),
} | ALWAYS


class LabelsRequest(Request):
    """One answer of a classifier: what pictures show, their features, or why they are labelled so."""

    # A core takes a quarter of a second for 32 gradients of the CIFAR-10 classifier, so a minute for these.
    work_max: ClassVar[int] = 8192
    outputs = OUTPUTS
    items = "images"

    task: str = field(
        "classify",
        "; ".join(f"`{name}`: {summary}" for name, summary in TASKS.items())
        + "; `describe`: what the model is and what its defaults are",
        one_of=(*TASKS, "describe"),
    )
    images: Pictures = field(
        None,
        "of any size: the largest middle part of the model's proportions, resized by Lanczos' filter; base64 "
        "in JSON, one or a list; a file in multipart; or the whole body one picture file",
        f"1 to {SAMPLES_MAX} pictures ({', '.join(FORMATS)}), {PIXELS_SENT_MAX} pixels in all",
        file=True,
        body=True,
        repr=False,  # a client's pictures belong in no log
    )
    invert: Switch = field(False, "dark becomes bright: for dark digits on white paper", "true, false")
    top_k: Count | None = field(
        None,
        "of `classify`: how many classes are named; 5 if not given, or all if there are fewer",
        ge=1,
        le=1000,
    )
    tta: Count | None = field(
        None,
        "test-time augmentation, of `classify` and `embed`: 0, which is usual, sees the picture; 1 its "
        "mirror image as well, if the model was trained on such; 2 both moved by a pixel, too. The answer is "
        "that of the mean",
        ge=min(TTA),
        le=max(TTA),
    )
    label: Label = field(
        None,
        "of `explain`: the class to explain, by name or index; the likeliest if not given",
        "a class by name or index, or a list with one for each picture",
    )
    method: str | None = field(
        None,
        "of `explain`: "
        + "; ".join(f"`{name}`, {summary}" for name, summary in METHODS.items())
        + "; `gradient` if not given",
        one_of=tuple(METHODS),
    )
    steps: Count | None = field(
        None, f"of `integrated`: points on the way; {STEPS} if not given", ge=1, le=256
    )
    format: str | None = field(
        None,
        "`json`, with heat maps as base64 PNGs. Heat maps alone: `png`, one grid, which is usual of them; "
        "`npy` uint8 (N, H, W, 3); `zip` of PNGs",
        one_of=("json", "png", "npy", "zip"),
    )
    columns: Count | None = field(
        None, "of the grid of heat maps; as square as possible if not given", ge=1, le=64
    )
    scale: Count = field(1, "of heat maps: enlargement of every pixel, for the eye", ge=1, le=16)

    def job(self, spec: LabelsContract, computed: dict[str, str]) -> Job | None:
        if self.task == "describe":
            self._only_task(self.task)
            return None
        if self.task != "classify":
            self._refuse(f"the task {self.task} names no classes", "top_k")
        explains = self.task == "explain"
        facts: dict[str, Any] = {"model": spec.name, "weights": spec.weights, "task": self.task}
        facts |= computed | {"invert": self.invert}
        more: dict[str, Any] = {"format": "json"}
        if explains:
            more |= self._explanation()
            facts |= {name: more[name] for name in ("method", "steps") if more[name]}
        else:
            self._refuse("only an explanation has it", "label", "method", "steps", "columns", "scale")
            if self.format not in (None, "json"):
                raise BadRequest("format", f"the answer to {self.task} is numbers", "json")
            more["tta"] = facts["tta"] = self.tta or 0
        if self.task != "embed":
            facts["temperature"] = spec.temperatures[self.tta or 0]
        n_classes = len(spec.classes)
        if self.task == "classify":
            more["top_k"] = min(5, n_classes) if self.top_k is None else self.top_k
            if more["top_k"] > n_classes:
                raise BadRequest("top_k", f"this model has {n_classes} classes", f"1 to {n_classes}")
        n = self._count()
        if explains:
            more["y"] = self._classes(spec, n)
            self._check_size(spec, n)
        x, sizes = self._pictures(spec)
        job = Labelling(Question(task=self.task, x=x, sizes=sizes, facts=facts, **more), spec)
        if job.work > self.work_max:
            message = f"{n} pictures of {job.nfe} network evaluations each take {job.work}"
            allowed = f"at most {self.work_max} in one request: fewer steps, or fewer pictures"
            raise BadRequest("steps" if more.get("steps") else "images", message, allowed)
        return job

    def _explanation(self) -> dict[str, Any]:
        """Return the parts of the question that only an explanation has."""
        self._refuse("an explanation is of the picture as it is", "tta")
        method, form = self.method or "gradient", self.format or "png"
        if method != "integrated":
            self._refuse("a gradient is taken at one point", "steps")
        if self.columns is not None and form != "png":
            raise BadRequest("columns", f"a {form} has no grid", "only with format png")
        steps = (self.steps or STEPS) if method == "integrated" else 0
        values = {"method": method, "steps": steps, "format": form}
        return values | {"columns": self.columns, "scale": self.scale}

    def _count(self) -> int:
        """Return how many pictures were sent."""
        if self.images is None:
            raise BadRequest("images", f"{self.task} wants pictures", f"1 to {SAMPLES_MAX} of them")
        if not self.images:
            raise BadRequest("images", "an empty list", f"1 to {SAMPLES_MAX} pictures")
        return len(self.images) if isinstance(self.images, list) else 1

    def _pictures(self, spec: LabelsContract) -> tuple[Tensor, tuple[tuple[int, int], ...]]:
        """Return the pictures at the model's size, (n, C, H, W), and the (W, H) that each had."""
        files = self.images if isinstance(self.images, list) else [self.images or b""]
        left, pairs = PIXELS_SENT_MAX, []
        for k, data in enumerate(files):
            try:
                x, (width, height) = resized(data, spec.shape, self.invert, left)
            except ValueError as error:
                allowed = f"{', '.join(FORMATS)}; {PIXELS_SENT_MAX} pixels in all"
                raise BadRequest("images", f"images {k}: {error}", allowed) from None
            left -= width * height
            pairs.append((x, (width, height)))
        xs, sizes = zip(*pairs, strict=True)
        return torch.stack(xs), sizes

    def _classes(self, spec: LabelsContract, n: int) -> tuple[int, ...] | None:
        """Return the class to explain of each picture; None for the likeliest."""
        if self.label is None:
            return None
        each = self.label if isinstance(self.label, list) else [self.label] * n
        if len(each) != n:
            raise BadRequest("label", f"{len(each)} labels for {n} pictures", "one, or one for each picture")
        return tuple(class_index(value, spec.classes) for value in each)

    def _check_size(self, spec: LabelsContract, n: int) -> None:
        """Refuse heat maps that are too large to open."""
        values = heat_size(n, spec.shape, self.columns, self.scale)
        if values > self.size_max:
            fewer = ["a smaller scale"] * (self.scale > 1) + ["fewer pictures"] * (n > 1)
            raise BadRequest(
                "scale" if self.scale > 1 else "images",
                f"the answer would have {values} pixel values",
                f"at most {self.size_max}: {' or '.join(fewer) or 'another model'}",
            )
