"""What a client may ask of any model that draws; docs/api.md is made from this and its neighbours."""

from abc import ABC, abstractmethod
from typing import Any, Literal

import torch

from genserve.runs.contract import Spec
from genserve.sampling.samplers import Sampler, See
from genserve.sampling.schedules import SCHEDULES
from genserve.sampling.settings import Setting
from genserve.sampling.solvers import TAKE_ETA
from genserve.serving.fields import BadRequest, field
from genserve.serving.jobs.base import Job
from genserve.serving.jobs.drawings import Drawing
from genserve.serving.limits import FRAMES_MAX, STREAM_FRAMES, WORK_MAX
from genserve.serving.orders import Notes, Order
from genserve.serving.requests.grids import OUTPUTS, GridRequest, check_size
from genserve.serving.values import Count, Real, Watching


class PictureRequest(GridRequest, ABC):
    """What every model that draws pictures along noise levels is asked."""

    outputs = OUTPUTS | {
        "energy": ("FP64", "[n, k]", "of an energy"),
        "rank": ("FP64", "[n, k]", "of an energy"),
        "energy_before": ("FP64", "[n, k]", "of the task `refine`"),
        "rank_before": ("FP64", "[n, k]", "of the task `refine`"),
        "acceptance": ("FP64", "[n, k]", "of `mala`"),
    }

    task: str | None
    sampler: str | None

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
    format: str = field(
        "png",
        "`png` one grid; `json` a base64 PNG an image; `npy` uint8 (N, H, W, C); `zip` of PNGs; "
        "`filmstrip` a row an image, noise to picture; `gif` the same as an animation",
        one_of=("png", "json", "npy", "zip", "filmstrip", "gif"),
    )
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

    @abstractmethod
    def resolved(self, spec: Spec) -> tuple[Order, Setting | None]:
        """Return what the answer is to be, and how its images are drawn, if any are drawn.

        Raises:
            BadRequest: a field does not fit the model or another field.
        """

    @staticmethod
    @abstractmethod
    def begin(
        order: Order,
        setting: Setting | None,
        spec: Spec,
        device: torch.device,
        see: See | None,
        notes: Notes,
    ) -> Sampler:
        """Return the sampler whose result is the answer.

        Args:
            order, setting: what `resolved` has returned.
            see: is shown every query and the guess of x_0.
            notes: is filled with what the answer says of each image beside its pixels.
        """

    def job(self, spec: Spec, computed: dict[str, str]) -> Job | None:
        order, setting = self.resolved(spec)
        if order.task == "describe":
            return None
        return Drawing(order, setting, spec, self.begin, computed)

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
        check_size(order, spec.shape, setting)
        return order

    def _check_format(self) -> None:
        """Refuse fields that the format has no use for."""
        self._check_columns("png", "gif")
        if self.stream and self.format != "png":
            raise BadRequest("format", "a stream shows one grid", "png, or no stream")
        if not self.stream and (watching := {"frames", "preview"} & self.model_fields_set):
            raise BadRequest(min(watching), "only a stream has frames", "with stream=true or stream=jsonl")

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
