"""What a client may ask of any model that draws pictures: how many, which, of what class, in what form."""

import secrets
from abc import ABC
from collections.abc import Sequence

from genserve.labels import NO_CLASS, class_of, numbered
from genserve.sampling.noise import SEED_MAX, drawn_classes
from genserve.sampling.settings import Setting
from genserve.serving.fields import BadRequest, echo, field
from genserve.serving.jobs.drawings import size
from genserve.serving.limits import PIXELS_MAX, SAMPLES_MAX
from genserve.serving.orders import Order
from genserve.serving.requests.base import ALWAYS, Request
from genserve.serving.values import Count, Label

# What an answer in KServe's second protocol can consist of, n requests of k images each.
OUTPUTS = {
    "png": ("BYTES", "[n, k]", "each image, a PNG in base64"),
    "pixels": ("UINT8", "[n, k, H, W, C]", "the images, with `format` npy"),
    "file": ("BYTES", "[n]", "the answer in base64, with any other `format` but json"),
    "seed": ("INT64", "[n]", "of each request"),
    "seed_to": ("INT64", "[n]", "of each request"),
    "nfe": ("INT64", "[n]", "network evaluations of each image"),
    "index": ("INT64", "[n, k]", "of each image"),
    "label": ("INT64", "[n, k]", "of each image"),
    "t": ("FP64", "[n, k]", "where an image lies between two seeds"),
} | ALWAYS


class GridRequest(Request, ABC):
    """What every model that draws pictures is asked."""

    outputs = OUTPUTS
    items = "images"

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
    label: Label = field(
        None,
        "what to draw; a name comes first, and where all names are whole numbers, only names count; 2 and "
        '"2" mean the same; if not given, a class drawn for each image, or none where pictures are sent; '
        f"`{NO_CLASS}` asks the model without any class",
        f"a class by name or index, a list with one for each image, or {NO_CLASS}",
    )
    format: str = field(
        "png",
        "`png` one grid; `json` a base64 PNG an image; `npy` uint8 (N, H, W, C); `zip` of PNGs",
        one_of=("png", "json", "npy", "zip"),
    )
    columns: Count | None = field(
        None, "of the grid (`png`, `gif`); as square as possible if not given", ge=1, le=64
    )
    scale: Count = field(1, "enlargement of every pixel, for the eye", ge=1, le=16)

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

    def _check_columns(self, *grids: str) -> None:
        """Refuse columns for a format that is none of these, which have a grid."""
        if self.columns is not None and self.format not in grids:
            raise BadRequest(
                "columns", f"a {self.format} has no grid", f"only with format {' or '.join(grids)}"
            )

    def _seed(self) -> int:
        """Return the seed, drawn if none was sent."""
        return secrets.randbelow(2**53) if self.seed is None else self.seed

    def _labels(self, classes: Sequence[str], seed: int, n: int, draw: bool) -> list[int] | None:
        """Return the class of each image, or None for the model without any."""
        if self.label == NO_CLASS and NO_CLASS not in classes:
            return None
        if self.label is None:
            indices = range(self.first_index, self.first_index + n)
            return drawn_classes(seed, indices, len(classes)) if classes and draw else None
        each = self.label if isinstance(self.label, list) else [self.label] * n
        return [class_index(value, classes) for value in each]


def class_index(value: int | str, classes: Sequence[str]) -> int:
    """Return a class's index."""
    index = class_of(value, classes)
    if index is None:
        names = ", ".join(classes[:20]) or "none: this model has no classes"
        names += ", ..." if len(classes) > 20 else ""
        by_index = "" if numbered(classes) else f"0 to {len(classes) - 1}, or "
        raise BadRequest("label", f"{echo(str(value))!r} is no class of this model", by_index + names)
    return index


def check_size(order: Order, shape: Sequence[int], setting: Setting | None) -> None:
    """Refuse pictures that are too large to open; name the field that makes them so."""
    n, (values, frames) = order.n, size(order, shape, setting)
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
