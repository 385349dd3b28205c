"""A batch is a function of (seed, step); images are changed as wholes."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genserve.data.batches import (
    AugmentConfig,
    augmented,
    batch_indices,
    cut_out,
    flipped,
    flipped_in_turn,
    shifted,
    shifted_in_mirrors,
)


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


def test_what_a_move_leaves_empty_is_mirrored_from_inside() -> None:
    x, rng = torch.arange(16.0).view(1, 1, 4, 4).expand(60, -1, -1, -1), torch.Generator().manual_seed(1)
    at = [2, 1, 0, 1, 2, 3, 2, 1]  # of columns -2 to 5
    windows = {
        tuple(4.0 * r + c for r in at[down : down + 4] for c in at[right : right + 4])
        for down in range(5)
        for right in range(5)
    }
    moved = {tuple(row.flatten().tolist()) for row in shifted_in_mirrors(x, 2, rng)}
    assert moved <= windows
    assert len(moved) > 15
    one = augmented(x, AugmentConfig(shift=2, reflect=True), torch.Generator().manual_seed(1))
    assert one.equal(shifted_in_mirrors(x, 2, torch.Generator().manual_seed(1)))


def test_turns_show_every_image_both_ways_in_two_epochs() -> None:
    x, first = torch.rand(6, 2, 3, 3), torch.tensor([True, False] * 3)
    even, odd = flipped_in_turn(x, first, 4), flipped_in_turn(x, first, 5)
    assert even[::2].equal(x[::2].flip(-1))
    assert even[1::2].equal(x[1::2])
    assert odd.equal(even.flip(-1))


def test_a_square_anywhere_inside_each_image_is_cut_out() -> None:
    x = torch.ones(200, 2, 5, 6)
    cut = augmented(x, AugmentConfig(cutout=2), torch.Generator().manual_seed(0))
    assert cut.equal(cut_out(x, 2, torch.Generator().manual_seed(0)))
    holes = {tuple((image[0] == 0).nonzero().flatten().tolist()) for image in cut}
    squares = {(r, c, r, c + 1, r + 1, c, r + 1, c + 1) for r in range(4) for c in range(5)}
    assert holes == squares  # each of them came up
    assert (cut[:, 0] == cut[:, 1]).all()
    with pytest.raises(ValueError, match="cutout must be in 0 to 5"):
        cut_out(x, 6, torch.Generator())
