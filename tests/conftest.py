"""What every test shares: exact noise, and property tests that draw the same examples on every machine."""

import pytest
import torch
from hypothesis import settings
from torch import Tensor

from genserve.noise import Noise

settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=50, database=None)
settings.load_profile("repeatable")
torch.set_num_threads(1)  # what tests compute is small: threads would only wait for each other


@pytest.fixture
def noise() -> Noise:
    """Standard normal noise like x, seeded; in x's dtype, so float64 where the test wants exact arithmetic."""
    generator = torch.Generator().manual_seed(0)

    def draw(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)

    return draw
