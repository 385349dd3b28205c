"""What a client may ask of a model that draws in one evaluation: a GAN's generator, a VAE."""

import math
from abc import ABC
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from genserve.runs.contracts.latents import GanSpec, LatentSpec, VaeSpec
from genserve.sampling.latent import CHANGES
from genserve.sampling.noise import SEED_MAX
from genserve.serving.fields import BadRequest, field
from genserve.serving.jobs.base import Job
from genserve.serving.jobs.drawings import Drawing
from genserve.serving.jobs.latents import TASKS, Look, drawing, looking
from genserve.serving.limits import SAMPLES_MAX
from genserve.serving.orders import Order
from genserve.serving.requests.grids import OUTPUTS, GridRequest, check_size
from genserve.serving.requests.sent import picture, pictures_field
from genserve.serving.values import Count, Label, Pictures, Real

DRAWS_MAX = 64  # z of the posterior of one picture, in one request


class LatentRequest(GridRequest, ABC):
    """What every such model is asked."""

    task: str | None
    change: ClassVar[str]  # what may be done to the noise: a field, and one of CHANGES

    label: Label = field(
        None,
        "what to draw; a name comes first, and where all names are whole numbers, only names count; if not "
        "given, a class drawn for each image",
        "a class by name or index, or a list with one for each image",
    )
    seed_to: Count | None = field(
        None,
        "the images turn from that of `seed` into that of `seed_to`, both number `first_index`, in "
        "`num_samples` steps, all of one class",
        ge=0,
        le=SEED_MAX,
    )

    def _drawn(self, spec: LatentSpec, computed: dict[str, str], number: float) -> Job:
        """Return the job of drawing.

        Args:
            number: of the change of the noise.

        Raises:
            BadRequest: a field does not fit the model or another field.
        """
        n, seed = self._count(), self._seed()
        self._check_columns("png")
        label = self._classes(spec, seed, n, draw=True)
        if self.seed_to is not None:
            if n < 2:
                message = "one image cannot lie between two seeds"
                raise BadRequest("seed_to", message, "num_samples of 2 or more")
            if isinstance(self.label, list):
                raise BadRequest("label", "all images between two seeds have one class", "one label, no list")
            label = label and (label[0],) * n
        facts: dict[str, Any] = {self.change: None if math.isinf(number) else number}
        if self.seed_to is not None:
            facts["seed_to"] = self.seed_to
        order = self._order(spec, "sample", n, label, facts, seed=seed, seed_to=self.seed_to)
        return Drawing(order, None, spec, drawing(CHANGES[self.change], number), computed)

    def _order(
        self,
        spec: LatentSpec,
        task: str,
        n: int,
        label: tuple[int, ...] | None,
        facts: dict[str, Any],
        **more: Any,
    ) -> Order:
        """Return the order of a task; raises BadRequest if its pictures would be too large to open."""
        values: dict[str, Any] = {"format": self.format, "columns": self.columns, "scale": self.scale}
        values |= {"nfe": 1, "first_index": self.first_index, "label": label} | more
        model = {"model": spec.name, "weights": spec.weights}
        order = Order(task=task, n=n, facts=model | facts, **values)
        check_size(order, spec.shape, None)
        return order

    def _classes(self, spec: LatentSpec, seed: int, n: int, draw: bool) -> tuple[int, ...] | None:
        """Return the class of each image; None if the model has none, or none is given and none is drawn."""
        if spec.classes and self.label == "none":
            raise BadRequest("label", "this model draws only with a class", ", ".join(spec.classes[:20]))
        label = self._labels(spec.classes, seed, n, draw)
        return None if label is None else tuple(label)


class GanRequest(LatentRequest):
    """One answer of a generator: pictures, or a description of the model."""

    change = "truncation"

    task: Literal["sample", "describe"] = field(
        "sample", "`describe` answers with what the model is and what its defaults are"
    )
    truncation: Real | None = field(
        None,
        "moves every number of the noise into plus and minus this much: less is more typical and less "
        "varied; if not given, the model's own, or none",
        "above 0 to 10",
        gt=0,
        le=10,
    )

    def job(self, spec: GanSpec, computed: dict[str, str]) -> Job | None:
        if self.task == "describe":
            self._only_task(self.task)
            return None
        number = spec.truncation if self.truncation is None else self.truncation
        return self._drawn(spec, computed, math.inf if number is None else number)


class VaeRequest(LatentRequest):
    """One answer of an autoencoder: pictures that it draws, or what it makes of pictures that are sent."""

    change = "temperature"
    outputs = OUTPUTS | {
        "bound": ("FP64", "[n, k]", "of the task `bound`: nats, the bound of -ln p(x | y)"),
        "reconstruction": ("FP64", "[n, k]", "of the task `bound`: nats"),
        "kl": ("FP64", "[n, k]", "of the task `bound`: nats"),
        "importance_weighted": ("FP64", "[n, k]", "of the task `bound` with several `draws`: nats, tighter"),
        "bits_per_dim": ("FP64", "[n, k]", "of the task `bound`"),
        "mean": ("FP64", "[n, k, z_dim]", "of the task `encode`: the mean of q(z given x and y)"),
        "log_variance": ("FP64", "[n, k, z_dim]", "of the task `encode`: its ln variance"),
        "noise": ("FP64", "[n, k, z_dim]", "of the task `encode`: the prior's noise at the mean"),
    }

    task: str | None = field(
        None,
        "; ".join(f"`{name}`: {task.summary}" for name, task in TASKS.items())
        + "; `describe`: what the model is and what its defaults are",
        one_of=(*TASKS, "describe"),
    )
    images: Pictures = pictures_field()
    label: Label = field(
        None,
        "what to draw, or what the pictures are: a class by name or index; if not given, a class drawn for "
        "each image, and for a picture that is sent the class that makes it likeliest",
        "a class by name or index, or a list with one for each image",
    )
    temperature: Real | None = field(
        None,
        "of `sample`: what the noise is multiplied by; less is more typical and less varied; if not given, "
        "the model's own",
        "above 0 to 2",
        gt=0,
        le=2,
    )
    draws: Count | None = field(
        None,
        "of `bound`: how many z of each picture's posterior it is the mean of; 1 if not given",
        ge=1,
        le=DRAWS_MAX,
    )

    def job(self, spec: VaeSpec, computed: dict[str, str]) -> Job | None:
        name = self.task or ("sample" if self.images is None else "reconstruct")
        if name == "describe":
            self._only_task(name)
            return None
        task = TASKS[name]
        if name != "bound":
            self._refuse("only a bound has draws", "draws")
        if not task.pictures:
            self._refuse(f"{name} starts from noise", "images")
            number = spec.temperature if self.temperature is None else self.temperature
            return self._drawn(spec, computed, number)
        self._refuse(f"{name} is of pictures that are sent", "temperature", "seed_to", "first_index")
        if not task.draws:
            self._refuse(f"{name} draws nothing", "seed")
        x = self._pictures(spec, name)
        if name == "walk":
            n = self.num_samples
            if n < 2:
                raise BadRequest("num_samples", "a walk has two ends", "2 or more")
            label = self._classes(spec, 0, 2, draw=False) if self._of_pictures(len(x)) else None
        else:
            n = self._count(len(x))
            label = self._classes(spec, 0, n, draw=False)
        self._check_columns("png")
        draws = self.draws or 1
        classes = 0 if label or not spec.classes else len(spec.classes)  # to be compared for each picture
        nfe = task.evaluations * draws + classes
        if name == "walk":
            nfe = 1 + math.ceil(2 * (1 + classes) / n)
        seed = self._seed() if task.draws else None
        numbers = not task.pictured
        if numbers and "format" in self.model_fields_set and self.format != "json":
            raise BadRequest("format", f"the answer to {name} is numbers", "json")
        facts = {"draws": draws} if name == "bound" else {}
        order = self._order(
            spec,
            name,
            n,
            label,
            facts,
            seed=seed,
            pictures=x,
            pictured=task.pictured,
            nfe=nfe,
            format="json" if numbers else self.format,
        )
        return Drawing(order, None, spec, looking(Look(name, label, draws)), computed)

    def _pictures(self, spec: VaeSpec, task: str) -> Tensor:
        """Return the pictures that were sent, (n, C, H, W)."""
        if self.images is None:
            raise BadRequest("images", f"{task} wants pictures", f"1 to {SAMPLES_MAX} of them")
        files = self.images if isinstance(self.images, list) else [self.images]
        if not files:
            raise BadRequest("images", "an empty list", f"1 to {SAMPLES_MAX} pictures")
        if task == "walk" and len(files) != 2:
            raise BadRequest("images", f"a walk is between 2 pictures, not {len(files)}", "2 pictures")
        return torch.stack([picture("images", data, spec.shape, k) for k, data in enumerate(files)])

    def _of_pictures(self, n: int) -> bool:
        """Return whether classes of the pictures were given; one, or one for each."""
        if isinstance(self.label, list) and len(self.label) != n:
            raise BadRequest("label", f"{len(self.label)} labels for {n} pictures", "one, or one for each")
        return self.label is not None
