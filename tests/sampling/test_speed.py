"""The speed of an evaluator is that of its fullest batches, as of late, once it was measured."""

import pytest

from genserve.sampling.speed import LATELY_S, MEASURED_S, Speed


def test_a_speed_is_believed_once_enough_was_measured() -> None:
    speed = Speed()
    assert speed.items_s == 0
    speed.add(32, MEASURED_S * 0.6)
    assert speed.items_s == 0
    speed.add(32, MEASURED_S * 0.6)
    assert speed.items_s == pytest.approx(32 / (MEASURED_S * 0.6))


def test_emptier_batches_say_nothing_and_a_fuller_one_begins_anew() -> None:
    speed = Speed()
    for _ in range(10):
        speed.add(8, 0.1)
    assert speed.items_s == pytest.approx(80)
    speed.add(1, 0.1)
    assert speed.items_s == pytest.approx(80)
    for _ in range(10):
        speed.add(32, 0.1)
    assert speed.items_s == pytest.approx(320)
    speed.add(8, 100)
    assert speed.items_s == pytest.approx(320)


def test_an_emptier_batch_that_is_faster_shows_that_the_machine_is() -> None:
    speed = Speed()
    speed.add(32, 1.0)
    for _ in range(1000):
        speed.add(8, 0.1)
    assert speed.items_s == pytest.approx(80, rel=0.05)
    speed.add(32, 0.1)
    assert speed.items_s > 80


def test_a_machine_that_gets_slower_is_soon_known_to_be() -> None:
    speed = Speed()
    for _ in range(10_000):
        speed.add(10, 0.01)
    assert speed.items_s == pytest.approx(1000)
    for _ in range(int(3 * LATELY_S / 0.1)):
        speed.add(10, 0.1)
    assert 100 < speed.items_s < 150
