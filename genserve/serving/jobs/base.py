"""A job: a resolved request from its admission to its reply, as the service sees it.

What a family can do is in its jobs; the service admits, evaluates and hands out without knowing any of them.
"""

from abc import ABC, abstractmethod

import torch

from genserve.sampling.engine import Finished, Sampler
from genserve.serving.replies import Reply


class Streaming(ABC):
    """The answer to a client that watches, in parts."""

    content_type: str
    headers: dict[str, str]

    @abstractmethod
    def more(self) -> bytes:
        """Return what is new since the last call; safe while another thread runs the sampler."""

    @abstractmethod
    def end(self, ended: Finished, reply: Reply) -> Reply:
        """Return the end of the stream.

        Args:
            reply: what a plain request would have got, or an error.
        """

    @abstractmethod
    def broken(self, reply: Reply) -> Reply:
        """Return the answer to a request that failed: itself, or the end of what was begun as a success."""


class Job(ABC):
    """What a resolved request asks for, and how it is done."""

    task: str
    n: int  # items in the answer: images, texts
    stream: Streaming | None = None  # what the client is sent on the way, if it asked for that

    @property
    @abstractmethod
    def work(self) -> int:
        """The most items that are evaluated for it, over all evaluations."""

    @property
    @abstractmethod
    def size(self) -> int:
        """About a quarter of the answer's characters: a pixel has four in a tensor."""

    @abstractmethod
    def begin(self, device: torch.device) -> Sampler:
        """Return the sampler whose result is the answer."""

    @abstractmethod
    def answer(self, ended: Finished) -> Reply:
        """Return the answer, once the sampler has ended well; whatever it raises is a fault of ours."""

    @abstractmethod
    def __str__(self) -> str:
        """Return what a log may say of it: task, seed and settings, never what a client has sent."""
