"""Learning rate, EMA, random numbers and precision of a step of training."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from genserve.learning.config import GeneratorConfig
from genserve.learning.optim import (
    averaged,
    diverged,
    generator,
    learning_rate,
    look_ahead,
    placed,
    precision_of,
    seed_dropout,
    set_learning_rate,
    triangular_rate,
    update_ema,
)

CPU = torch.device("cpu")


def test_learning_rate_rises_by_equal_parts_and_falls_as_half_a_cosine() -> None:
    rates = [learning_rate(step, 110, 10, 2.0) for step in range(111)]
    assert rates[:10] == pytest.approx([0.2 * k for k in range(1, 11)])
    assert rates[10] == pytest.approx(2.0)
    assert rates[60] == pytest.approx(1.0)  # half way down
    assert rates[110] == pytest.approx(0.0)
    for k in range(101):  # a cosine is odd around its middle
        assert rates[10 + k] + rates[110 - k] == pytest.approx(2.0)
    assert rates[35] == pytest.approx(1 + math.cos(math.pi / 4))


def test_learning_rate_without_warmup_starts_at_its_peak() -> None:
    assert learning_rate(0, 10, 0, 0.3) == 0.3


def ema_of(values: list[float], decay: float, start: float = 0.0) -> float:
    model, ema = nn.Linear(1, 1).double(), nn.Linear(1, 1).double().requires_grad_(False)
    nn.init.constant_(ema.weight, start)
    for step, value in enumerate(values):
        nn.init.constant_(model.weight, value)
        update_ema(ema, model, decay, step)
    return ema.weight.item()


def test_the_random_start_is_forgotten_by_the_law_of_the_warm_up() -> None:
    """Decay k / (k + 10) at the k-th step, k = 1, 2, ...: their product is n! 10! / (n + 10)!."""
    for n in (1, 5, 40):
        assert ema_of([0.0] * n, 0.9999, start=1.0) == pytest.approx(1 / math.comb(n + 10, 10), rel=1e-9)


def test_ema_settles_to_its_decay() -> None:
    """Long after the warm-up a step of the weights from 0 to 1 is followed as 1 - decay^n."""
    assert ema_of([0.0] * 200 + [1.0] * 30, 0.9) == pytest.approx(1 - 0.9**30, rel=1e-9)


def test_ema_of_constant_weights_is_those_weights() -> None:
    assert ema_of([0.7] * 50, 0.99, start=0.7) == pytest.approx(0.7, rel=1e-12)


def test_the_numbers_of_a_step_depend_on_seed_and_step() -> None:
    def numbers(seed: int, step: int) -> tuple[float, ...]:
        return tuple(torch.rand(4, generator=generator(seed, step, CPU)).tolist())

    assert numbers(3, 5) == numbers(3, 5)
    assert len({numbers(seed, step) for seed in range(10) for step in range(100)}) == 1000


def test_dropout_depends_on_seed_step_and_rank_and_not_on_what_was_drawn_before() -> None:
    def mask(seed: int, step: int, rank: int) -> tuple[bool, ...]:
        seed_dropout(seed, step, rank)
        return tuple((nn.functional.dropout(torch.ones(64)) > 0).tolist())

    cases = [(seed, step, rank) for seed in (0, 1, 2) for step in (0, 1, 2) for rank in (0, 1)]
    masks = [mask(*case) for case in cases]
    assert masks == [mask(*case) for case in reversed(cases)][::-1]
    assert len(set(masks)) == len(cases)


def test_precision_rules_where_matrices_are_multiplied() -> None:
    a = torch.ones(2, 2)
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        with precision_of(name, CPU)():
            assert (a @ a).dtype == dtype


def test_an_averaged_copy_is_apart_from_its_network_and_has_no_gradients() -> None:
    layer = nn.Linear(2, 2)
    ema = averaged(nn.Sequential(layer, nn.Dropout(0.5)))
    before = [p.clone() for p in ema.parameters()]
    nn.init.constant_(layer.weight, 3.0)
    assert all(p.equal(value) for p, value in zip(ema.parameters(), before, strict=True))
    assert not any(p.requires_grad for p in ema.parameters())
    x = torch.ones(1, 2)
    assert ema(x).equal(ema(x))  # dropout is off


def test_a_placed_network_is_the_same_network_with_channels_last() -> None:
    network = nn.Conv2d(3, 4, 3)
    before = network.weight.clone()
    assert placed(network, CPU) is network
    assert network.weight.equal(before)
    assert network.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_faster_group_learns_that_many_times_faster() -> None:
    p, q = (nn.Parameter(torch.zeros(1)) for _ in range(2))
    groups: list[dict[str, Any]] = [{"params": [p]}, {"params": [q], "faster": 8.0}]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    set_learning_rate(optimizer, 0.5)
    (p + q).sum().backward()
    optimizer.step()
    assert (p.item(), q.item()) == (-0.5, -4.0)


def test_a_run_that_diverged_says_when_how_fast_it_learnt_and_what_to_try() -> None:
    config = GeneratorConfig(name="wild", output="out", lr=0.5, warmup=10)
    message = str(diverged(config, 4, 100, "loss nan"))
    assert message.startswith(
        "loss nan at step 4, lr 0.25; a checkpoint in out/wild is from before. Try a lower --lr"
    )


def test_a_triangle_has_its_peak_at_23_percent() -> None:
    rates = [triangular_rate(step, 200, 2.0) for step in range(201)]
    assert (rates[0], max(rates), rates[46]) == pytest.approx((0.4, 2.0, 2.0))
    assert rates[200] == pytest.approx(0.14)
    assert rates[23] == pytest.approx(1.2)  # half way up
    assert rates[123] == pytest.approx((2 + 0.14) / 2)  # half way down


def test_looking_ahead_fast_weights_go_on_from_slow_ones() -> None:
    """At step 60 of 100 slow weights keep 0.95^5 0.6^3 of their distance; between meetings nothing moves."""
    fast, slow = nn.BatchNorm1d(1).double(), nn.BatchNorm1d(1).double()
    for network, value in ((fast, 3.0), (slow, 1.0)):
        for tensor in (network.weight, network.bias, network.running_mean, network.running_var):
            nn.init.constant_(tensor, value)
    fast.num_batches_tracked += 7
    look_ahead(slow, fast, 59, 100)
    assert (fast.weight.item(), slow.weight.item()) == (3, 1)
    look_ahead(slow, fast, 60, 100)
    expected = 3 - 2 * 0.95**5 * 0.6**3
    for network in (fast, slow):
        for tensor in (network.weight, network.bias, network.running_mean, network.running_var):
            assert tensor.item() == pytest.approx(expected, rel=1e-12)
    assert (fast.num_batches_tracked, slow.num_batches_tracked) == (7, 0)
