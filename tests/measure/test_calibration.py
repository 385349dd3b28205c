"""Temperatures and calibration errors, against what was put in and what NumPy counts."""

import numpy as np
import pytest
import torch
from torch import Tensor

from genserve.measure.calibration import (
    RANGE,
    confusion,
    expected_calibration_error,
    fitted_temperature,
    negative_log_likelihood,
)
from genserve.sampling.labelling import probabilities


def drawn(temperature: float, n: int = 20_000) -> tuple[Tensor, Tensor]:
    """Return logits, and classes drawn from their probabilities at a temperature."""
    rng = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(n, 6, generator=rng, dtype=torch.double)
    y = torch.multinomial(probabilities(logits, temperature), 1, generator=rng).squeeze(1)
    return logits, y


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_that_classes_were_drawn_at_is_fitted(temperature: float) -> None:
    logits, y = drawn(temperature)
    fitted = fitted_temperature(logits, y)
    assert fitted == pytest.approx(temperature, rel=0.03)
    least = negative_log_likelihood(logits, y, fitted)
    assert all(negative_log_likelihood(logits, y, fitted * off) > least for off in (0.99, 1.01))
    assert fitted_temperature(5 * logits + 7, y) == pytest.approx(5 * fitted, rel=1e-6)


def test_a_temperature_stays_in_its_range() -> None:
    logits = torch.eye(4) / 1000
    assert fitted_temperature(logits, torch.arange(4)) == pytest.approx(RANGE[0])
    assert fitted_temperature(logits, torch.arange(4).roll(1)) == pytest.approx(RANGE[1])


def test_the_likelihood_is_that_of_the_right_class() -> None:
    logits = torch.tensor([[0.0, 0.0], [torch.log(torch.tensor(9.0)), 0.0]])
    expected = -(np.log(0.5) + np.log(0.9)) / 2
    assert negative_log_likelihood(logits, torch.tensor([1, 0])) == pytest.approx(expected)


def test_the_calibration_error_is_the_mean_gap_over_intervals() -> None:
    logits, y = drawn(1.0, 500)
    p = probabilities(logits, 0.3)
    confidence, label = p.max(1).values.numpy(), p.argmax(1).numpy()
    total = 0.0
    for k in range(15):
        inside = (confidence > k / 15) & (confidence <= (k + 1) / 15)
        if inside.any():
            right = (label == y.numpy())[inside].mean()
            total += inside.mean() * abs(right - confidence[inside].mean())
    assert expected_calibration_error(p, y) == pytest.approx(total)
    assert total > 0.1  # too sure of itself


def test_probabilities_from_which_classes_are_drawn_are_calibrated() -> None:
    logits, y = drawn(1.5, 50_000)
    assert expected_calibration_error(probabilities(logits, 1.5), y) < 0.01
    assert expected_calibration_error(probabilities(logits, 0.5), y) > 0.1


def test_confusions_are_counted_by_class_and_label() -> None:
    y, label = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 2, 1, 2])
    assert confusion(label, y, 3).tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 1]]
