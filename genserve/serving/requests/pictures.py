"""What a client may ask of any model that draws; docs/api.md is made from this and its two neighbours."""

import math
import secrets
from abc import ABC, abstractmethod
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, PrivateAttr
from typing_extensions import Self

from genserve.labels import NO_CLASS, class_of, numbered
from genserve.runs.contract import Spec
from genserve.sampling.defaults import BadSetting, Defaults
from genserve.sampling.noise import SEED_MAX, drawn_classes
from genserve.sampling.settings import Setting
from genserve.serving.fields import SAMPLES_MAX, BadRequest, Count, Label, Real, Watching, echo, field

# values in one answer; the host takes minutes over a batch of answers of tens of megabytes
PIXELS_MAX = 2**22
WORK_MAX = 16_384  # images x network evaluations of one request: a minute of one core
FRAMES_MAX = 50  # of an animation
STREAM_FRAMES = 10  # where a client says no number
STRIP_MAX = 10  # noise levels in a filmstrip

Schedule = Literal["karras", "linear", "cosine", "offset_cosine", "tuned"]


class PictureRequest(BaseModel, ABC):
    """What every model that draws pictures is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    _setting: Setting | None = PrivateAttr(None)
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
        "drawn where not given, and returned; the same seed gives the same images",
        ge=0,
        le=SEED_MAX,
    )
    first_index: Count = field(
        0,
        "number of the first image: image k of a seed is the same picture whichever request draws it",
        ge=0,
        le=2**53,
    )
    steps: Count | None = field(None, "steps of the sampler; the model's best where not given", ge=1, le=1000)
    eta: Real | None = field(
        None,
        "fresh noise of `ddim` and `dpmpp_2m`: 0 none, 1 as much as `ddpm`; where not given, 0, or "
        "with no sampler given either, the model's best",
        ge=0,
        le=1,
    )
    schedule: Schedule | None = field(
        None,
        "spacing of the noise levels; `tuned` was found for this model and some numbers of steps, which "
        "`describe` lists; where not given, the model's best",
    )
    label: Label = field(
        None,
        "what to draw; a name comes first, and where all names are whole numbers, only names count; 2 and "
        '"2" mean the same; where not given, a class drawn for each image, or none where pictures are sent; '
        f"`{NO_CLASS}` asks the model without any class",
        f"a class by name or index, a list with one for each image, or {NO_CLASS}",
    )
    format: Literal["png", "json", "npy", "zip", "filmstrip", "gif"] = field(
        "png",
        "`png` one grid; `json` a base64 PNG an image; `npy` uint8 (N, H, W, C); `zip` of PNGs; "
        "`filmstrip` a row an image, noise to picture; `gif` the same as an animation",
    )
    columns: Count | None = field(
        None, "of the grid (`png`, `gif`); as square as possible where not given", ge=1, le=64
    )
    scale: Count = field(1, "enlargement of every pixel, for the eye", ge=1, le=16)
    stream: Watching = field(
        False,
        "watch it appear: `true` sends PNG frames that a browser plays (multipart/x-mixed-replace), "
        "`jsonl` a line of JSON a frame; the finished picture comes last",
    )
    frames: Count | None = field(None, "of a stream, at most; 10 where not given", ge=1, le=FRAMES_MAX)
    preview: Literal["x_0", "x_t"] | None = field(
        None,
        "what the frames of a stream show: `x_0`, the current guess of the picture, which is usual, or the "
        "noisy `x_t`",
    )

    @abstractmethod
    def resolved(self, spec: Spec) -> Self:
        """Return the request with every open field filled in; `label` becomes one number an image, or none.

        Raises:
            BadRequest: a field does not fit the model or another field.
        """

    @property
    def setting(self) -> Setting:
        """How the images of a resolved request are drawn.

        Raises:
            ValueError: the request is not resolved, or draws nothing.
        """
        if self._setting is None:
            raise ValueError("resolve the request first")
        return self._setting

    @property
    @abstractmethod
    def evaluations(self) -> int:
        """How often each image will be evaluated; of a resolved request.

        Raises:
            ValueError: the request is not resolved.
        """

    @abstractmethod
    def settings(self, spec: Spec) -> dict[str, Any]:
        """Return what, beside seed, index, label and what was sent, the answer depends on."""

    @property
    def cost(self) -> int:
        """Network evaluations of an image a look."""
        return 1

    @property
    def pictured(self) -> bool:
        """Whether the answer shows images."""
        return True

    @property
    def indices(self) -> range:
        """Numbers of the images, which with the seed name their noise."""
        return range(self.first_index, self.first_index + self.num_samples)

    def _common(self, spec: Spec) -> dict[str, Any]:
        """Return what is filled in alike for every family: seed, number of images, stream.

        Raises:
            BadRequest: a field does not fit the model or another field.
        """
        filled: dict[str, Any] = {"seed": secrets.randbelow(2**53) if self.seed is None else self.seed}
        if isinstance(self.label, list):
            if "num_samples" in self.model_fields_set and len(self.label) != self.num_samples:
                raise BadRequest(
                    "label",
                    f"{len(self.label)} labels for {self.num_samples} images",
                    "one, or one for each image",
                )
            filled["num_samples"] = len(self.label)
        if filled.get("num_samples", self.num_samples) < 1:
            raise BadRequest("label", "an empty list", f"1 to {SAMPLES_MAX} labels")
        if self.columns is not None and self.format not in ("png", "gif"):
            raise BadRequest("columns", f"a {self.format} has no grid", "only with format png or gif")
        if self.stream:
            if self.format != "png":
                raise BadRequest("format", "a stream shows one grid", "png, or no stream")
            filled["frames"] = self.frames or STREAM_FRAMES
            filled["preview"] = self.preview or "x_0"
        elif watching := {"frames", "preview"} & self.model_fields_set:
            raise BadRequest(min(watching), "only a stream has frames", "with stream=true or stream=jsonl")
        return filled

    def _with(self, filled: dict[str, Any], setting: Setting | None) -> Self:
        """Return the request with its open fields filled in, and how its images are drawn."""
        request = self.model_copy(update=filled)
        request._setting = setting
        return request

    def _labels(self, spec: Spec, seed: int, n: int, draw: bool) -> list[int] | None:
        """Return the class of each image, or none for the model without any."""
        if self.label == NO_CLASS and NO_CLASS not in spec.classes:
            return None
        if self.label is None:
            indices = range(self.first_index, self.first_index + n)
            return drawn_classes(seed, indices, len(spec.classes)) if spec.classes and draw else None
        each = self.label if isinstance(self.label, list) else [self.label] * n
        return [_class(value, spec) for value in each]

    def _check_work(self, each: int) -> None:
        """Refuse what would hold up everybody else; `each` is the evaluations of an image."""
        if self.num_samples * each > WORK_MAX:
            raise BadRequest(
                "steps",
                f"{self.num_samples} images at {self.steps} steps take {self.num_samples * each} "
                "network evaluations",
                f"at most {WORK_MAX} in one request: fewer steps, or fewer images (more by first_index)",
            )

    def _check_size(self, spec: Spec) -> None:
        """Refuse pictures nobody could open; name the field that makes them so large."""
        c, h, w = spec.shape
        across = (
            STRIP_MAX
            if self.format == "filmstrip"
            else min(self.num_samples, self.columns or math.isqrt(self.num_samples - 1) + 1)
        )
        down = self.num_samples if self.format == "filmstrip" else math.ceil(self.num_samples / across)
        most = FRAMES_MAX if self.format == "gif" else (self.frames or 1)
        frames = min(self.steps or 1, most - 1) + 1
        values = across * down * h * w * self.scale**2 * c  # of one frame
        if values * frames <= PIXELS_MAX:
            return
        fewer = ["fewer samples"] if self.num_samples > 1 else []
        fewer += ["a smaller scale"] if self.scale > 1 else []
        name = "scale" if self.scale > 1 else "num_samples" if self.num_samples > 1 else "format"
        if values <= PIXELS_MAX:
            name = "frames" if self.stream else "steps"  # a gif has a frame a step
            fewer = [f"fewer {name}", *fewer]
        raise BadRequest(
            name,
            f"the answer would have {values * frames} pixel values",
            f"at most {PIXELS_MAX} in all: {' or '.join(fewer or ['another one'])}",
        )

    def _only_task(self, task: str) -> None:
        """Refuse every field beside a task that has no use for any."""
        if beside := sorted(self.model_fields_set - {"task"}):
            raise BadRequest(beside[0], f"means nothing to the task {task}", "no other field")


def fitting(defaults: Defaults, **given: Any) -> Setting:
    """Return the setting of what a request gives; what is none is what the model is served with.

    Raises:
        BadRequest: a field does not fit the model or another field.
    """
    try:
        return Setting.of(defaults, **given)
    except BadSetting as error:
        raise BadRequest(error.field, error.message, error.allowed) from error


def _class(value: int | str, spec: Spec) -> int:
    """Return a class's index."""
    index = class_of(value, spec.classes)
    if index is None:
        names = ", ".join(spec.classes[:20]) or "none: this model has no classes"
        names += ", ..." if len(spec.classes) > 20 else ""
        by_index = "" if numbered(spec.classes) else f"0 to {len(spec.classes) - 1}, or "
        raise BadRequest("label", f"{echo(str(value))!r} is no class of this model", by_index + names)
    return index
