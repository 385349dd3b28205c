"""Clients that ask a server without a pause, and note what each of them got."""

import base64
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import requests

from genserve import image_files
from genserve.drawing.client import answers
from genserve.operate.rolling import ROUNDING

PATIENCE_S = 300.0  # of a client that does not ask again
PAUSE_S = 0.1  # after a failure of such a client: a refused connection costs nothing
GONE = "no answer"


def settings(n: int) -> list[dict[str, Any]]:
    """Return n requests: of few steps and many, of one picture and several."""
    steps = (2, 4, 8, 15, 25, 40)
    return [
        {"seed": k, "steps": steps[k % len(steps)], "num_samples": 1 + k % 3, "format": "json"}
        for k in range(n)
    ]


def pictures(answer: dict[str, Any]) -> tuple[str, ...]:
    """Return the pictures of an answer, as text."""
    return tuple(image["png"] for image in answer["images"])


def alike(drawn: tuple[str, ...], expected: tuple[str, ...]) -> bool:
    """Return whether pictures are those expected, but for rounding."""
    if len(drawn) != len(expected):
        return False
    return all(one == other or _agree(one, other) for one, other in zip(drawn, expected, strict=True))


def _agree(one: str, other: str) -> bool:
    try:
        a, b = (image_files.read(base64.b64decode(text)).astype(int) for text in (one, other))
    except ValueError:  # not a picture
        return False
    return a.shape == b.shape and int(abs(a - b).max()) <= ROUNDING


def _right(content: bytes, expected: tuple[str, ...]) -> bool:
    try:
        return alike(pictures(json.loads(content)), expected)
    except (ValueError, KeyError, TypeError):  # not an answer of pictures
        return False


@dataclass
class Noted:
    """What a client was answered."""

    at: float  # time.monotonic
    seconds: float
    status: str  # a number, or GONE
    right: bool = True  # whether a picture is the one it must be


@dataclass
class Crowd:
    """Clients in threads of their own, from the beginning of a block to its end.

    Args:
        address: of the model.
        expected: requests, and the pictures of each.
        patient: clients that ask again as drawing.client does.
        plain: clients that do not.
    """

    address: str
    expected: list[tuple[dict[str, Any], tuple[str, ...]]]
    patient: int
    plain: int
    asked_again: list[Noted] = field(default_factory=list)  # what patient clients got
    asked_once: list[Noted] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)  # why a patient client gave up

    def __post_init__(self) -> None:
        self._over = threading.Event()
        runs = [self._ask_again] * self.patient + [self._ask_once] * self.plain
        self._threads = [threading.Thread(target=run, args=(k,)) for k, run in enumerate(runs)]

    def __enter__(self) -> "Crowd":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    @property
    def wrong(self) -> int:
        """Number of pictures that are others than they must be."""
        return sum(not noted.right for noted in [*self.asked_again, *self.asked_once])

    def _tour(self, k: int) -> Iterator[tuple[dict[str, Any], tuple[str, ...]]]:
        """Yield requests until the end; each client begins elsewhere."""
        order = self.expected[k % len(self.expected) :] + self.expected[: k % len(self.expected)]
        for one in cycle(order):
            if self._over.is_set():
                return
            yield one

    def _ask_again(self, k: int) -> None:
        for fields, expected in self._tour(k):
            began = time.monotonic()
            while True:
                try:
                    (answer,) = answers(self.address, [fields], in_flight=1)
                    break
                except ValueError as error:
                    # a server that is being started cannot be reached: `answers` thinks the address is wrong
                    if "does not answer" not in str(error) or time.monotonic() - began > PATIENCE_S:
                        self.lost.append(str(error))
                        return
                    time.sleep(1)
            now = time.monotonic()
            self.asked_again.append(Noted(now, now - began, "200", alike(pictures(answer), expected)))

    def _ask_once(self, k: int) -> None:
        with requests.Session() as session:
            session.trust_env = False
            for fields, expected in self._tour(k):
                began = time.monotonic()
                status, right = GONE, True
                try:
                    reply = session.post(self.address, json=fields, timeout=PATIENCE_S)
                except requests.RequestException:
                    pass
                else:
                    status = str(reply.status_code)
                    right = reply.status_code != requests.codes.ok or _right(reply.content, expected)
                now = time.monotonic()
                self.asked_once.append(Noted(now, now - began, status, right))
                if status != "200":
                    time.sleep(PAUSE_S)


def counts(noted: list[Noted]) -> str:
    """Return in words how often each status came."""
    numbers = Counter(one.status for one in noted)
    return ", ".join(f"{numbers[status]} x {status}" for status in sorted(numbers)) or "none"
