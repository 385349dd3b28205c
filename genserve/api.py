"""Every request a server accepts. docs/api.md is made from this file.

A JSON body is taken strictly (4 is a number, "4" is not); form fields and query strings are text and are read
as what the field is. Whatever is wrong is one `BadRequest` that names the field and says what is allowed.
"""

import json
import math
import secrets
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo

from genserve.diffusion import evaluations
from genserve.export import Spec
from genserve.noise import SEED_MAX, drawn_classes
from genserve.schedules import levels

SAMPLES_MAX = 64  # images in one answer
NO_CLASS = "none"  # as a label
PIXELS_MAX = (
    2**22
)  # values in one answer; the host takes minutes over a batch of answers of tens of megabytes
WORK_MAX = 16_384  # images x network evaluations of one request: a minute of one core
FRAMES_MAX = 50  # of an animation
STREAM_FRAMES = 10  # where a client says no number
STRIP_MAX = 10  # noise levels in a filmstrip


class BadRequest(ValueError):  # noqa: N818 (the name that HTTP gives it)
    """A client's mistake: which field, what is wrong with it, what would be right."""

    def __init__(self, field: str, message: str, allowed: str = "") -> None:
        super().__init__(f"{field}: {message}")
        self.field, self.message, self.allowed = field, message, allowed

    def body(self) -> bytes:
        """Return the answer, JSON."""
        error = {"field": self.field, "message": self.message, "allowed": self.allowed}
        return json.dumps({"error": error}).encode()


def _listed(value: Any, info: ValidationInfo) -> Any:
    """Read "1,2,3" in a form as a list; refuse a long list before anybody looks at what is in it."""
    if info.context and isinstance(value, str) and "," in value:
        value = [part.strip() for part in value.split(",")]
    if isinstance(value, list) and len(value) > SAMPLES_MAX:
        raise ValueError("too many labels")
    return value


def _digits(value: Any, info: ValidationInfo) -> Any:
    """Take plain digits for a number in a form; Python would read "1_0" and " 4.0" as well."""
    if info.context and not (isinstance(value, str) and value.isascii() and value.isdecimal()):
        raise ValueError("not a whole number")
    return value


def _switch(value: Any, info: ValidationInfo) -> Any:
    """Read true and false in a form."""
    return {"true": True, "false": False}.get(value, value) if info.context else value


def _field(default: Any, allowed: str, description: str, **limits: Any) -> Any:
    return Field(default, description=description, json_schema_extra={"allowed": allowed}, **limits)


Label = Annotated[int | str | list[int | str] | None, BeforeValidator(_listed)]
Count = Annotated[int, BeforeValidator(_digits)]
Watching = Annotated[Literal[False, True, "jsonl"], BeforeValidator(_switch)]


class DiffusionRequest(BaseModel):
    """One answer of a diffusion model: pictures, or a description of the model."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    task: Literal["sample", "describe"] = _field(
        "sample", "sample, describe", "`describe` answers with what the model is and what its defaults are"
    )
    num_samples: Count = _field(
        16,
        f"1 to {SAMPLES_MAX}",
        "images in this answer; with a list of labels, as many as the list",
        ge=1,
        le=SAMPLES_MAX,
    )
    seed: Count | None = _field(
        None,
        f"0 to {SEED_MAX}",
        "drawn where not given, and returned; the same seed gives the same images",
        ge=0,
        le=SEED_MAX,
    )
    first_index: Count = _field(
        0,
        "0 to 2**53",
        "number of the first image: image k of a seed is the same picture whichever request draws it",
        ge=0,
        le=2**53,
    )
    steps: Count | None = _field(
        None, "1 to 1000", "steps of the sampler; the model's best where not given", ge=1, le=1000
    )
    sampler: Literal["ddim", "ddpm", "heun", "dpmpp_2m"] | None = _field(
        None, "ddim, ddpm, heun, dpmpp_2m", "the model's best where not given"
    )
    eta: float | None = _field(
        None,
        "0 to 1",
        "fresh noise of `ddim`, which alone takes it: 0 none, 1 as much as `ddpm`; where not given, 0, or "
        "with no sampler given either, the model's best",
        ge=0,
        le=1,
    )
    schedule: Literal["karras", "linear", "cosine", "offset_cosine"] | None = _field(
        None,
        "karras, linear, cosine, offset_cosine",
        "spacing of the noise levels; the model's best where not given",
    )
    label: Label = _field(
        None,
        f"a class by number or name, a list with one for each image, or {NO_CLASS}",
        "what to draw; where not given, a class drawn for each image; "
        f"`{NO_CLASS}` asks the model without any class",
    )
    guidance: float | None = _field(
        None,
        "0 to 20",
        "weight of the class: 1 is the model itself, more is more typical",
        ge=0,
        le=20,
    )
    format: Literal["png", "json", "npy", "zip", "filmstrip", "gif"] = _field(
        "png",
        "png, json, npy, zip, filmstrip, gif",
        "`png` one grid; `json` a base64 PNG an image; `npy` uint8 (N, H, W, C); `zip` of PNGs; "
        "`filmstrip` a row an image, noise to picture; `gif` the same as an animation",
    )
    columns: Count | None = _field(
        None, "1 to 64", "of the grid (`png`, `gif`); as square as possible where not given", ge=1, le=64
    )
    scale: Count = _field(1, "1 to 16", "enlargement of every pixel, for the eye", ge=1, le=16)
    stream: Watching = _field(
        False,
        "true, false, jsonl",
        "watch it appear: `true` sends PNG frames that a browser plays (multipart/x-mixed-replace), "
        "`jsonl` a line of JSON a frame; the finished picture comes last",
    )
    frames: Count | None = _field(
        None, f"1 to {FRAMES_MAX}", "of a stream, at most; 10 where not given", ge=1, le=FRAMES_MAX
    )
    preview: Literal["x_0", "x_t"] | None = _field(
        None,
        "x_0, x_t",
        "what the frames of a stream show: `x_0`, the current guess of the picture, which is usual, or the "
        "noisy `x_t`",
    )

    @property
    def indices(self) -> range:
        """Numbers of the images, which with the seed name their noise."""
        return range(self.first_index, self.first_index + self.num_samples)

    def resolved(self, spec: Spec) -> "DiffusionRequest":
        """Return the request with every open field filled in; `label` becomes one number an image, or none.

        Raises:
            BadRequest: a field does not fit the model or another field.
        """
        if self.task != "sample" and self.model_fields_set > {"task"}:
            beside = sorted(self.model_fields_set - {"task"})
            raise BadRequest(beside[0], f"means nothing to the task {self.task}", "no other field")
        drawn = secrets.randbelow(2**53)  # exact in every JSON reader
        filled: dict[str, Any] = {
            "seed": drawn if self.seed is None else self.seed,
            "steps": self.steps or spec.steps,
            "sampler": self.sampler or spec.sampler,
            "schedule": self.schedule or spec.schedule,
        }
        if isinstance(self.label, list):
            if "num_samples" in self.model_fields_set and len(self.label) != self.num_samples:
                raise BadRequest(
                    "label",
                    f"{len(self.label)} labels for {self.num_samples} images",
                    "one, or one for each image",
                )
            filled["num_samples"] = len(self.label)
        n = filled.get("num_samples", self.num_samples)
        if n < 1:
            raise BadRequest("label", "an empty list", f"1 to {SAMPLES_MAX} labels")
        filled["label"] = label = self._labels(spec, filled["seed"], n)
        if label is None and self.guidance not in (None, 1):
            raise BadRequest("guidance", "guidance pulls toward a class, and there is none", "1, or a label")
        usual = spec.guidance if label else 1.0
        filled["guidance"] = usual if self.guidance is None else self.guidance
        if filled["sampler"] != "ddim" and self.eta is not None:
            raise BadRequest("eta", f"{filled['sampler']} takes no eta", "only with sampler ddim")
        if filled["sampler"] == "ddim" and self.eta is None:
            filled["eta"] = spec.eta if self.sampler is None else 0.0
        try:
            levels(filled["schedule"], filled["steps"], spec.sigma_min, spec.sigma_max)
        except ValueError as error:
            raise BadRequest(
                "steps", str(error), f"fewer steps, or another schedule than {filled['schedule']}"
            ) from error
        if self.columns is not None and self.format not in ("png", "gif"):
            raise BadRequest("columns", f"a {self.format} has no grid", "only with format png or gif")
        if self.stream:
            if self.format != "png":
                raise BadRequest("format", "a stream shows one grid", "png, or no stream")
            filled["frames"] = self.frames or STREAM_FRAMES
            filled["preview"] = self.preview or "x_0"
        elif watching := {"frames", "preview"} & self.model_fields_set:
            raise BadRequest(min(watching), "only a stream has frames", "with stream=true or stream=jsonl")
        request = self.model_copy(update=filled)
        request._check_work()
        request._check_size(spec)
        return request

    def _labels(self, spec: Spec, seed: int, n: int) -> list[int] | None:
        """Return the class of each image, or none for the model without any."""
        if self.label == NO_CLASS and NO_CLASS not in spec.classes:
            return None
        if self.label is None:
            indices = range(self.first_index, self.first_index + n)
            return drawn_classes(seed, indices, len(spec.classes)) if spec.classes else None
        each = self.label if isinstance(self.label, list) else [self.label] * n
        return [_class(value, spec) for value in each]

    def _check_work(self) -> None:
        """Refuse what would hold up everybody else."""
        work = self.num_samples * self.evaluations * (2 if self.guidance != 1 else 1)
        if work > WORK_MAX:
            raise BadRequest(
                "steps",
                f"{self.num_samples} images at {self.steps} steps take {work} network evaluations",
                f"at most {WORK_MAX} in one request: fewer steps, or fewer images (more by first_index)",
            )

    def _check_size(self, spec: Spec) -> None:
        """Refuse pictures nobody could open."""
        c, h, w = spec.shape
        across = (
            STRIP_MAX
            if self.format == "filmstrip"
            else min(self.num_samples, self.columns or math.isqrt(self.num_samples - 1) + 1)
        )
        down = self.num_samples if self.format == "filmstrip" else math.ceil(self.num_samples / across)
        most = FRAMES_MAX if self.format == "gif" else (self.frames or 1)
        frames = min(self.steps or 1, most - 1) + 1
        pixels = across * down * h * w * self.scale**2 * frames
        if pixels * c > PIXELS_MAX:
            raise BadRequest(
                "scale",
                "the answer would have too many pixels",
                f"at most {PIXELS_MAX} in all: fewer samples or a smaller scale",
            )

    @property
    def evaluations(self) -> int:
        """How often the sampler will ask the model, without guidance; of a resolved request.

        Raises:
            ValueError: the request is not resolved.
        """
        if self.sampler is None or self.steps is None:
            raise ValueError("resolve the request first")
        return evaluations(self.sampler, self.steps)

    def settings(self, spec: Spec) -> dict[str, Any]:
        """Return what, beside seed, index and label, these images depend on."""
        return {
            "model": spec.name,
            "weights": spec.weights,
            "sampler": self.sampler,
            "steps": self.steps,
            "schedule": self.schedule,
            "eta": self.eta,
            "guidance": self.guidance,
        }


def _class(value: int | str, spec: Spec) -> int:
    """Return a class's number."""
    allowed = (
        f"0 to {len(spec.classes) - 1}, or {', '.join(spec.classes[:20])}"
        if spec.classes
        else "none: this model has no classes"
    )
    names = {str(k): k for k in range(len(spec.classes))} | {name: k for k, name in enumerate(spec.classes)}
    number = names.get(value) if isinstance(value, str) else value
    if number is None or not 0 <= number < len(spec.classes):
        raise BadRequest("label", f"{str(value)[:40]!r} is no class of this model", allowed)
    return number


def parse(kind: type[DiffusionRequest], fields: dict[str, Any], text: bool) -> DiffusionRequest:
    """Return a request from its fields.

    Args:
        text: the values are strings, as in a form or a query string.

    Raises:
        BadRequest: the first thing that is wrong.
    """
    try:
        if text:
            return kind.model_validate_strings(fields, context={"text": True})
        return kind.model_validate(fields, strict=True)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = str(problem["loc"][0]) if problem["loc"] else "body"
        if name not in kind.model_fields:
            shown = name[:40].encode("ascii", "replace").decode()
            raise BadRequest(shown, "there is no such field", ", ".join(kind.model_fields)) from None
        extra = kind.model_fields[name].json_schema_extra
        assert isinstance(extra, dict)
        # of a union, one message for all its members
        wrong_type = name == "label" and problem["type"] != "value_error"
        message = "wrong type" if wrong_type else problem["msg"].removeprefix("Value error, ")
        raise BadRequest(name, message, str(extra["allowed"])) from None
