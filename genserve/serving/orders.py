"""An order: what a client gets, with nothing left open. How its images are drawn is a Setting."""

from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from genserve.sampling.interpolation import Between
from genserve.sampling.noise import Noise, Streams

# What an answer says of each image beside its pixels, by name: numbers, rounded.
Notes = dict[str, list[Any]]


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a resolved request asks for.

    Args:
        task: one of the request's tasks.
        n: images in the answer.
        seed: of the noise, 0 to 2**63 - 1; None if nothing is drawn.
        seed_to: the last image is the first one of this seed, and the others lie between the two.
        first_index: number of the first image, which with the seed names its noise.
        label: the class of each image; None for the model without any.
        format, columns, scale: as the client wrote them.
        stream: False, True (frames that a browser plays) or "jsonl".
        frames: most frames of a stream, the finished picture included.
        preview: what the frames of a stream show.
        pictures: (n, C, H, W) in [-1, 1], what the client sent, or n times the one picture that it sent.
        keep: (1, H, W) bool, the pixels of the pictures that stay.
        pictured: the answer shows images.
        sigma: noise level at which pictures are read; of an energy.
        nfe: network evaluations of each image.
        facts: what else the answer depends on, beside seed, index, label and pictures: shown to the client.
    """

    task: str
    n: int = 0
    seed: int | None = None
    seed_to: int | None = None
    first_index: int = 0
    label: tuple[int, ...] | None = None
    format: str = "png"
    columns: int | None = None
    scale: int = 1
    stream: Literal[False, True, "jsonl"] = False
    frames: int = 0
    preview: Literal["x_0", "x_t"] = "x_0"
    pictures: Tensor | None = field(default=None, repr=False, compare=False)  # they belong in no log
    keep: Tensor | None = field(default=None, repr=False, compare=False)
    pictured: bool = True
    sigma: float | None = None
    nfe: int = 0
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def indices(self) -> range:
        """Numbers of the images."""
        return range(self.first_index, self.first_index + self.n)

    @property
    def work(self) -> int:
        """Network evaluations of all images together."""
        return self.n * self.nfe

    def noise(self) -> Noise:
        """Return the noise of the images, each from a stream of its own, or between those of two seeds.

        Raises:
            ValueError: nothing is drawn.
        """
        if self.seed is None:
            raise ValueError(f"the task {self.task} draws nothing")
        if self.seed_to is not None:
            return Between(self.seed, self.seed_to, self.first_index, self.n)
        return Streams(self.seed, self.indices)
