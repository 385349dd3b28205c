"""A batch is a function of (seed, step); images are changed as wholes."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genserve.data.batches import batch_indices, flipped, shifted


@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 5), st.integers(0, 99))
def test_an_epoch_shows_no_image_twice(per_epoch: int, batch_size: int, rest: int, seed: int) -> None:
    n = per_epoch * batch_size + rest
    for epoch in range(2):
        steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
        shown = torch.cat([batch_indices(n, batch_size, per_epoch, seed, step) for step in steps])
        assert len(shown) == n - rest
        assert shown.unique().numel() == n - rest
        assert set(shown.tolist()) <= set(range(n))


def test_a_batch_is_a_function_of_seed_and_step_alone() -> None:
    def batch(seed: int, step: int) -> list[int]:
        return batch_indices(100, 10, 10, seed, step).tolist()

    forward = [batch(0, step) for step in range(40)]
    backward = [batch(0, step) for step in reversed(range(40))]
    assert forward == backward[::-1]
    epochs = [[i for step in forward[10 * k : 10 * k + 10] for i in step] for k in range(4)]
    assert all(sorted(epoch) == list(range(100)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4  # a new permutation each
    assert batch(1, 0) != batch(0, 0)


def test_an_epoch_of_more_images_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="3 batches of 4 are more than 11 images"):
        batch_indices(11, 4, 3, 0, 0)


def test_shifted_moves_each_image_whole_and_repeats_its_border() -> None:
    n, h, w = 500, 4, 5
    rows, cols = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    x = torch.stack([rows, cols]).float().expand(n, 2, h, w)  # each pixel says where it came from
    y = shifted(x, 2, torch.Generator().manual_seed(0))
    moves = set()
    for image in y:
        dy, dx = next(
            (dy, dx)
            for dy in range(-2, 3)
            for dx in range(-2, 3)
            if torch.equal(image[0], (rows + dy).clamp(0, h - 1).float())
            and torch.equal(image[1], (cols + dx).clamp(0, w - 1).float())
        )
        moves.add((dy, dx))
    assert len(moves) == 25  # each of 25 moves is missing among 500 with probability 25 exp(-20)


def test_flipped_mirrors_about_half_of_the_images_whole() -> None:
    n = 2000
    x = torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    y = flipped(x, torch.Generator().manual_seed(0))
    same = (y == x).flatten(1).all(1)
    mirrored = (y == x.flip(-1)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert mirrored.float().mean().item() == pytest.approx(0.5, abs=4 * 0.5 / n**0.5)


@pytest.mark.parametrize("augment", [lambda x, g: shifted(x, 1, g), flipped])
def test_augmentation_repeats_with_its_generator(
    augment: Callable[[torch.Tensor, torch.Generator], torch.Tensor],
) -> None:
    x = torch.rand(50, 1, 4, 4)
    one, again, other = (augment(x, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
