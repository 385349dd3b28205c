"""What a client may ask of any model that draws; docs/api.md is made from this and its neighbours."""

import math
import secrets
from abc import ABC
from typing import Any, Literal

from genserve.labels import NO_CLASS, class_of, numbered
from genserve.runs.contract import Spec
from genserve.sampling.noise import SEED_MAX, drawn_classes
from genserve.sampling.schedules import SCHEDULES
from genserve.sampling.settings import Setting
from genserve.sampling.solvers import TAKE_ETA
from genserve.serving.fields import SAMPLES_MAX, BadRequest, Count, Label, Real, Watching, echo, field
from genserve.serving.orders import Order
from genserve.serving.requests.base import Request

# values in one answer; the host takes minutes over a batch of answers of tens of megabytes
PIXELS_MAX = 2**22
# images x network evaluations of one request: a minute of one core if they share batches, more if not
WORK_MAX = 16_384
FRAMES_MAX = 50  # of an animation
STREAM_FRAMES = 10  # where a client says no number
STRIP_MAX = 10  # noise levels in a filmstrip


class PictureRequest(Request, ABC):
    """What every model that draws pictures is asked."""

    task: str | None
    sampler: str | None

    num_samples: Count = field(
        16,
        "images in this answer; with a list of labels or of pictures, as many as the list",
        ge=1,
        le=SAMPLES_MAX,
    )
    seed: Count | None = field(
        None,
        "drawn if not given, and returned; the same seed gives the same images",
        ge=0,
        le=SEED_MAX,
    )
    first_index: Count = field(
        0,
        "number of the first image: image k of a seed is the same picture whichever request draws it",
        ge=0,
        le=2**53,
    )
    steps: Count | None = field(None, "steps of the sampler; the model's best if not given", ge=1, le=1000)
    eta: Real | None = field(
        None,
        f"fresh noise of {' and '.join(f'`{name}`' for name in TAKE_ETA)}: 0 none, 1 as much as `ddpm`; if "
        "not given, 0, or with no sampler given either, the model's best",
        ge=0,
        le=1,
    )
    schedule: str | None = field(
        None,
        "spacing of the noise levels; `tuned` was found for this model and some numbers of steps, which "
        "`describe` lists; if not given, the model's best",
        one_of=SCHEDULES,
    )
    label: Label = field(
        None,
        "what to draw; a name comes first, and where all names are whole numbers, only names count; 2 and "
        '"2" mean the same; if not given, a class drawn for each image, or none where pictures are sent; '
        f"`{NO_CLASS}` asks the model without any class",
        f"a class by name or index, a list with one for each image, or {NO_CLASS}",
    )
    format: Literal["png", "json", "npy", "zip", "filmstrip", "gif"] = field(
        "png",
        "`png` one grid; `json` a base64 PNG an image; `npy` uint8 (N, H, W, C); `zip` of PNGs; "
        "`filmstrip` a row an image, noise to picture; `gif` the same as an animation",
    )
    columns: Count | None = field(
        None, "of the grid (`png`, `gif`); as square as possible if not given", ge=1, le=64
    )
    scale: Count = field(1, "enlargement of every pixel, for the eye", ge=1, le=16)
    stream: Watching = field(
        False,
        "watch it appear: `true` sends PNG frames that a browser plays (multipart/x-mixed-replace), "
        "`jsonl` a line of JSON a frame; the finished picture comes last",
    )
    frames: Count | None = field(None, "of a stream, at most; 10 if not given", ge=1, le=FRAMES_MAX)
    preview: Literal["x_0", "x_t"] | None = field(
        None,
        "what the frames of a stream show: `x_0`, the current guess of the picture, which is usual, or the "
        "noisy `x_t`",
    )

    def _order(
        self,
        spec: Spec,
        *,
        task: str,
        n: int,
        seed: int | None,
        label: list[int] | None,
        setting: Setting | None,
        nfe: int,
        facts: dict[str, Any],
        **more: Any,
    ) -> Order:
        """Return the order, once work and size are known to be bounded.

        Raises:
            BadRequest: it would take too much work, or its pictures would be too large to open.
        """
        self._check_work(n, nfe, setting)
        values: dict[str, Any] = {
            "first_index": self.first_index,
            "format": self.format,
            "columns": self.columns,
            "scale": self.scale,
            "stream": self.stream,
            "frames": (self.frames or STREAM_FRAMES) if self.stream else 0,
            "preview": self.preview or "x_0",
        }
        order = Order(
            task=task,
            n=n,
            seed=seed,
            label=None if label is None else tuple(label),
            nfe=nfe,
            facts={"model": spec.name, "weights": spec.weights} | facts,
            **values | more,
        )
        _check_size(order, spec, setting)
        return order

    def _count(self, n: int | None = None) -> int:
        """Return the number of images, which a list of labels or of pictures gives.

        Args:
            n: pictures that were sent.

        Raises:
            BadRequest: two of them differ, or a list is empty.
        """
        if isinstance(self.label, list):
            if "num_samples" in self.model_fields_set and len(self.label) != self.num_samples:
                message = f"{len(self.label)} labels for {self.num_samples} images"
                raise BadRequest("label", message, "one, or one for each image")
            if not self.label:
                raise BadRequest("label", "an empty list", f"1 to {SAMPLES_MAX} labels")
        if n is None:
            return len(self.label) if isinstance(self.label, list) else self.num_samples
        if isinstance(self.label, list) and len(self.label) != n:
            raise BadRequest(
                "label", f"{len(self.label)} labels for {n} images", "one, or one for each image"
            )
        if "num_samples" in self.model_fields_set and self.num_samples != n:
            message = f"{self.num_samples} images asked for and {n} sent"
            raise BadRequest("num_samples", message, "as many as pictures")
        return n

    def _check_format(self) -> None:
        """Refuse fields that the format has no use for."""
        if self.columns is not None and self.format not in ("png", "gif"):
            raise BadRequest("columns", f"a {self.format} has no grid", "only with format png or gif")
        if self.stream and self.format != "png":
            raise BadRequest("format", "a stream shows one grid", "png, or no stream")
        if not self.stream and (watching := {"frames", "preview"} & self.model_fields_set):
            raise BadRequest(min(watching), "only a stream has frames", "with stream=true or stream=jsonl")

    def _seed(self) -> int:
        """Return the seed, drawn if none was sent."""
        return secrets.randbelow(2**53) if self.seed is None else self.seed

    def _labels(self, spec: Spec, seed: int, n: int, draw: bool) -> list[int] | None:
        """Return the class of each image, or None for the model without any."""
        if self.label == NO_CLASS and NO_CLASS not in spec.classes:
            return None
        if self.label is None:
            indices = range(self.first_index, self.first_index + n)
            return drawn_classes(seed, indices, len(spec.classes)) if spec.classes and draw else None
        each = self.label if isinstance(self.label, list) else [self.label] * n
        return [_class(value, spec) for value in each]

    def _check_work(self, n: int, nfe: int, setting: Setting | None) -> None:
        """Refuse what would hold up everybody else."""
        if n * nfe > WORK_MAX:
            repeats = setting is not None and setting.resample > 1
            fewer = "fewer steps, a smaller resample" if repeats else "fewer steps"
            raise BadRequest(
                "resample" if repeats else "steps",
                f"{n} images of {nfe} network evaluations each take {n * nfe}",
                f"at most {WORK_MAX} in one request: {fewer}, or fewer images (more by first_index)",
            )


def _check_size(order: Order, spec: Spec, setting: Setting | None) -> None:
    """Refuse pictures that are too large to open; name the field that makes them so."""
    c, h, w = spec.shape
    strip, n = order.format == "filmstrip", order.n
    across = STRIP_MAX if strip else min(n, order.columns or math.isqrt(n - 1) + 1)
    down = n if strip else math.ceil(n / across)
    most = FRAMES_MAX if order.format == "gif" else (order.frames or 1)
    frames = min(1 if setting is None else setting.steps_run, most - 1) + 1
    values = across * down * h * w * order.scale**2 * c  # of one frame
    if values * frames <= PIXELS_MAX:
        return
    fewer = ["fewer samples"] if n > 1 else []
    fewer += ["a smaller scale"] if order.scale > 1 else []
    name = "scale" if order.scale > 1 else "num_samples" if n > 1 else "format"
    if values <= PIXELS_MAX:
        name = "frames" if order.stream else "steps"  # a gif has a frame per step
        fewer = [f"fewer {name}", *fewer]
    raise BadRequest(
        name,
        f"the answer would have {values * frames} pixel values",
        f"at most {PIXELS_MAX} in all: {' or '.join(fewer or ['another one'])}",
    )


def _class(value: int | str, spec: Spec) -> int:
    """Return a class's index."""
    index = class_of(value, spec.classes)
    if index is None:
        names = ", ".join(spec.classes[:20]) or "none: this model has no classes"
        names += ", ..." if len(spec.classes) > 20 else ""
        by_index = "" if numbered(spec.classes) else f"0 to {len(spec.classes) - 1}, or "
        raise BadRequest("label", f"{echo(str(value))!r} is no class of this model", by_index + names)
    return index
