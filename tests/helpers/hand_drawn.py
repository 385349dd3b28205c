"""Pictures that tests send, and what they ask of a service in this process."""

import base64
import io
from typing import Any

import numpy as np
import torch

from genserve import images
from genserve.serving.replies import Reply
from genserve.serving.service import Service


def digit() -> np.ndarray:
    """A seven, drawn by hand: (28, 28) uint8."""
    pixels = np.zeros((28, 28), np.uint8)
    pixels[7:9, 8:20] = 255
    for row in range(9, 22):
        column = 19 - (row - 9) // 2
        pixels[row, column - 1 : column + 1] = 255
    blurred = torch.nn.functional.avg_pool2d(torch.from_numpy(pixels).float()[None], 3, 1, 1)
    return np.maximum(pixels, blurred[0].byte().numpy())


def sent(pixels: np.ndarray) -> str:
    return base64.b64encode(images.png(pixels.reshape(28, 28, 1))).decode()


SEVEN = sent(digit())
NOISY = sent(np.clip(digit() + np.random.default_rng(0).normal(0, 64, (28, 28)), 0, 255).astype(np.uint8))
STATIC = sent(np.random.default_rng(0).integers(0, 256, (28, 28)).astype(np.uint8))
MASK = sent(np.repeat(np.arange(28)[:, None] < 14, 28, axis=1).astype(np.uint8) * 255)  # the upper half stays


def ask(energy: Service, *requests: dict[str, Any]) -> list[Reply]:
    replies = energy.answers(requests)
    assert len(replies) == len(requests)
    return replies


def pixels(reply: Any) -> np.ndarray:
    assert reply.status == 200, reply.body
    return np.load(io.BytesIO(reply.body)).astype(int)


def energies(reply: Any) -> list[float]:
    return [float(e) for e in reply.headers["X-Energy"].split(",")]
