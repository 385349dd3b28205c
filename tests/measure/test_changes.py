"""Changes of images are what they say, and the shipped judges see blur, noise and smudges."""

import numpy as np
import pytest
import torch
from real_server import ROOT
from torch import Tensor

from genserve.measure.changes import CHANGES, SMUDGE_HEIGHT, changed
from genserve.measure.reference import Judge

GRAY = torch.full((4, 3, 16, 16), 128, dtype=torch.uint8)


@pytest.fixture(scope="module")
def digits() -> Tensor:
    """1,250 pictures of MNIST, (N, 1, 28, 28)."""
    return torch.from_numpy(np.load(ROOT / "tests/mnist/sample.npz")["train_x"]).unsqueeze(1)


def varied(seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (3, 2, 9, 11), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_gives_images_of_the_same_kind_and_repeats_itself(name: str) -> None:
    x = varied()
    result = changed(x, name)
    assert (result.shape, result.dtype) == (x.shape, x.dtype)
    assert torch.equal(result, x) == (name == "none")
    assert torch.equal(result, changed(x, name))


def test_blur_is_the_weighted_mean_of_neighbours_and_leaves_an_even_image() -> None:
    x = varied()
    inner = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    expected = (x[1, 1, 3:6, 4:7] * inner).sum().round()
    assert changed(x, "Gaussian blur, 3 x 3")[1, 1, 4, 5] == expected
    assert changed(x, "box blur, 3 x 3")[2, 0, 7, 1] == x[2, 0, 6:9, 0:3].float().mean().round()
    for blur in ("Gaussian blur, 3 x 3", "box blur, 3 x 3"):
        assert torch.equal(changed(GRAY, blur), GRAY)


def test_noise_has_its_deviation_and_a_move_moves() -> None:
    x = GRAY.repeat(50, 1, 1, 1)
    for std in (5, 10, 25):
        noise = changed(x, f"noise of std {std} of 255").float() - 128
        assert noise.std().item() == pytest.approx(std, rel=0.02)
        assert abs(noise.mean().item()) < 0.3
    x = varied()
    assert torch.equal(changed(x, "moved by 1 pixel")[:, :, 1:, 1:], x[:, :, :-1, :-1])
    assert torch.equal(changed(x, "moved by 2 pixels")[:, :, 2:, 2:], x[:, :, :-2, :-2])
    assert changed(x, "contrast 0.7")[0, 0, 0, 0] == round(127.5 + 0.7 * (float(x[0, 0, 0, 0]) - 127.5))


def test_smudges_are_faint_few_and_elsewhere_in_every_image() -> None:
    difference = changed(GRAY, "three faint smudges").float() - 128
    assert torch.equal(difference[:, 0], difference[:, 2])  # of no colour
    assert 0 < difference.abs().max() <= 3 * SMUDGE_HEIGHT
    assert all((one.abs() > SMUDGE_HEIGHT / 2).any() for one in difference)
    assert (difference.abs() < 1).float().mean() > 0.3
    assert not torch.equal(difference[0], difference[1])


def test_the_judge_of_mnist_sees_noise_blur_and_smudges(digits: Tensor) -> None:
    judge = Judge(ROOT / "weights/judge-mnist", (1, 28, 28), torch.device("cpu"))

    def distance(name: str) -> float:
        return judge.measure(changed(digits[:600], name))["judge_frechet_distance"]

    plain = distance("none")
    assert distance("noise of std 10 of 255") > 2 * plain
    assert distance("Gaussian blur, 3 x 3") > 10 * plain
    assert distance("three faint smudges") > 1.05 * plain
