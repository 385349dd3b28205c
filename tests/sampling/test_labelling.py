"""Views of a picture, probabilities, and explanations, by classifiers that can be computed by hand."""

from collections.abc import Callable, Generator
from typing import Any

import pytest
import torch
from torch import Tensor

from genserve.sampling.labelling import (
    TTA,
    Chosen,
    Pictures,
    integrated_gradients,
    labelled,
    merged,
    probabilities,
    ranked,
    slopes,
    views,
    weights,
)

Logits = Callable[[Tensor], Tensor]


def answered(question: Generator[Any, Any, Any], logits: Logits) -> tuple[Any, int]:
    """Return the result of a question to a classifier whose features are its pixels, and the items in it."""
    items, answer = 0, None
    while True:
        try:
            query = question.send(answer)
        except StopIteration as end:
            return end.value, items
        items += len(query[0])
        if isinstance(query, Pictures):
            answer = (logits(query.x), query.x.flatten(1))
        else:
            assert isinstance(query, Chosen)
            x = query.x.clone().requires_grad_(True)
            (answer,) = torch.autograd.grad(logits(x).gather(1, query.y.unsqueeze(1)).sum(), x)


def linear(seed: int = 0, pixels: int = 48, n_classes: int = 3) -> Logits:
    matrix = torch.randn(pixels, n_classes, generator=torch.Generator().manual_seed(seed))
    return lambda x: x.flatten(1) @ matrix


def curved(x: Tensor) -> Tensor:
    return torch.stack([linear(k)(x)[:, 0].square() + linear(k)(x)[:, 1] for k in range(3)], dim=1)


def steep(x: Tensor) -> Tensor:
    return (3 * linear()(x)).tanh()


@pytest.fixture
def x() -> Tensor:
    return torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(7)) * 2 - 1


@pytest.mark.parametrize("tta", TTA)
@pytest.mark.parametrize("mirror", [False, True])
def test_the_views_of_a_picture_weigh_1_together(tta: int, mirror: bool, x: Tensor) -> None:
    n = {0: (1, 1), 1: (1, 2), 2: (3, 6)}[tta][mirror]
    assert len(weights(tta, mirror)) == n
    assert sum(weights(tta, mirror)) == 1
    assert len(views(x, tta, mirror)) == 5 * n
    assert views(x, tta, mirror)[::n].equal(x)
    (logits, features), items = answered(labelled(x, tta, mirror), linear())
    assert (logits.shape, features.shape, items) == ((5, 3), (5, 48), 5 * n)


def test_without_augmentation_the_answer_is_the_classifiers(x: Tensor) -> None:
    (logits, features), _ = answered(labelled(x, 0, True), curved)
    assert logits.equal(curved(x))
    assert features.equal(x.flatten(1))


def test_mirrored_views_make_a_picture_and_its_mirror_image_the_same(x: Tensor) -> None:
    (one, _), _ = answered(labelled(x, 1, True), steep)
    (other, _), _ = answered(labelled(x.flip(-1), 1, True), steep)
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(one, (steep(x) + steep(x.flip(-1))) / 2)


def test_moved_views_are_a_pixel_away_and_mirrored_at_the_border() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    _, down_right, up_left = views(x, 2, False)
    expected = torch.tensor([[5.0, 4, 5, 6], [1, 0, 1, 2], [5, 4, 5, 6], [9, 8, 9, 10]])
    assert down_right[0].equal(expected)
    assert up_left[0].equal(15 - expected.flip(0, 1))


def test_the_second_level_is_half_the_picture_and_a_quarter_of_each_moved_one(x: Tensor) -> None:
    (logits, _), _ = answered(labelled(x, 2, True), steep)
    flips = [
        (steep(view) + steep(view.flip(-1))) / 2 for view in views(x, 2, False).unflatten(0, (5, 3)).unbind(1)
    ]
    torch.testing.assert_close(logits, flips[0] / 2 + flips[1] / 4 + flips[2] / 4)


@pytest.mark.parametrize("tta", TTA)
def test_a_picture_has_the_same_bits_alone_and_in_a_crowd(tta: int, x: Tensor) -> None:
    values = torch.randn(5 * len(weights(tta, True)), 7)
    crowd = merged(values, tta, True)
    parts = values.split(len(weights(tta, True)))
    assert all(merged(part, tta, True)[0].equal(row) for part, row in zip(parts, crowd, strict=True))


def test_a_level_that_is_not_there_is_named(x: Tensor) -> None:
    with pytest.raises(ValueError, match="tta must be one of 0, 1, 2, got 3"):
        views(x, 3, True)


def test_a_temperature_divides_the_logits() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    p = probabilities(logits, 2.0)
    torch.testing.assert_close(p[0, 0], torch.tensor(1.0).sigmoid())
    torch.testing.assert_close(p.sum(1), torch.ones(2))


def test_labels_are_ranked_and_a_tie_keeps_their_order() -> None:
    p, classes = ranked(torch.tensor([[0.2, 0.5, 0.1, 0.2]]), 3)
    assert classes.tolist() == [[1, 0, 3]]
    torch.testing.assert_close(p, torch.tensor([[0.5, 0.2, 0.2]]))


def test_the_slope_of_a_linear_classifier_is_its_weights(x: Tensor) -> None:
    y = torch.tensor([0, 1, 2, 0, 1])
    gradient, items = answered(slopes(x, y), linear())
    matrix = linear()(torch.eye(48).view(48, 3, 4, 4))
    torch.testing.assert_close(gradient.flatten(1), matrix.T[y])
    assert items == 5


BLACK = torch.tensor(-1.0)


@pytest.mark.parametrize(("logits", "steps"), [(linear(), 1), (curved, 1), (curved, 7), (steep, 400)])
def test_integrated_gradients_add_up_to_the_rise_of_the_logit(logits: Logits, steps: int, x: Tensor) -> None:
    """To rounding where the gradient is linear along the line, else as fine as the steps are."""
    y = torch.tensor([0, 1, 2, 0, 1])
    result, items = answered(integrated_gradients(x, y, BLACK, steps), logits)
    rise = (logits(x) - logits(torch.full_like(x, -1))).gather(1, y.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(result.rise, rise)
    torch.testing.assert_close(result.values.flatten(1).sum(1), rise, rtol=1e-3, atol=2e-3)
    assert items == 5 * (steps + 2)


def test_integrated_gradients_of_a_linear_classifier_are_weight_times_distance(x: Tensor) -> None:
    y = torch.tensor([0, 1, 2, 0, 1])
    result, _ = answered(integrated_gradients(x, y, BLACK, 3), linear())
    matrix = linear()(torch.eye(48).view(48, 3, 4, 4))
    torch.testing.assert_close(result.values.flatten(1), matrix.T[y] * (x.flatten(1) + 1))


def test_pixels_of_the_baseline_add_nothing(x: Tensor) -> None:
    """Even where the slope at the picture is steep; and a baseline may be a picture."""
    x[:, :, 1] = -1
    result, _ = answered(integrated_gradients(x, torch.zeros(5, dtype=torch.long), BLACK, 8), curved)
    assert not result.values[:, :, 1].any()
    itself, _ = answered(integrated_gradients(x, torch.zeros(5, dtype=torch.long), x, 8), curved)
    assert not itself.values.any()
    assert not itself.rise.any()
