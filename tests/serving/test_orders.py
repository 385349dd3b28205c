"""An order names the noise of its images, and keeps pictures out of what is printed."""

import pytest
import torch

from genserve.sampling.interpolation import Between
from genserve.sampling.noise import Streams
from genserve.serving.orders import Order

LIKE = torch.empty(3, 1, 2, 2)


def test_the_images_of_an_order_draw_from_their_own_streams() -> None:
    order = Order(task="sample", n=3, seed=7, first_index=4)
    assert list(order.indices) == [4, 5, 6]
    assert torch.equal(order.noise()(LIKE), Streams(7, [4, 5, 6])(LIKE))


def test_between_two_seeds_all_images_have_the_first_index() -> None:
    order = Order(task="sample", n=3, seed=7, seed_to=8, first_index=4)
    assert torch.equal(order.noise()(LIKE), Between(7, 8, 4, 3)(LIKE))


def test_a_task_that_draws_nothing_has_no_noise() -> None:
    with pytest.raises(ValueError, match="the task score draws nothing"):
        Order(task="score", n=3).noise()


def test_what_a_client_sent_is_not_printed() -> None:
    order = Order(task="restore", pictures=torch.full((1, 1, 2, 2), 0.123), keep=torch.ones(1, 2, 2).bool())
    assert "0.123" not in repr(order)
    assert "keep" not in repr(order)
