"""A compiled network answers like the trained one, with the same bits alone and in any crowd."""

import math
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from real_server import ROOT
from small_networks import question
from torch import Tensor

from genserve.precision import precision_for
from genserve.runs.comparison import SAMPLE, Comparison
from genserve.runs.compiled import Compiled
from genserve.runs.directory import load_model, model_config
from genserve.runs.loading import load_served
from genserve.sampling.engine import Answer
from genserve.sampling.langevin import Slope, slope
from genserve.sampling.samplers import Query

CPU = torch.device("cpu")
N = 40  # queries
OWN = sorted({"fp32", precision_for(CPU)})  # what a server chooses
DENOISERS = ("diffusion-mnist", "consistency-mnist", "diffusion-cifar10")
CASES = [
    *((run, precision) for run in DENOISERS for precision in (*OWN, "int8")),
    *(("energy-mnist", precision) for precision in OWN),
    *(pytest.param(("energy-cifar10", precision), marks=pytest.mark.slow) for precision in OWN),
]


def stacked(answer: Answer) -> Tensor:
    """Return all numbers of an answer, (B, n)."""
    columns = (answer,) if isinstance(answer, Tensor) else tuple(answer)
    return torch.cat([column.flatten(1) if column.ndim > 1 else column.unsqueeze(1) for column in columns], 1)


@dataclass(frozen=True)
class Known:
    """The compiled network of a run, N queries, and its answer to each of them alone."""

    run: str
    precision: str
    model: Compiled
    query: Query
    alone: Tensor

    def of(self, rows: list[int]) -> Tensor:
        """Return the answers to these queries in one evaluation."""
        return stacked(self.model(*(column[rows] for column in self.query)))


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def known(request: pytest.FixtureRequest, compiled: Callable[[str], Path]) -> Known:
    """A shipped run in a precision; the tests of one come together, so that few are in memory."""
    run, precision = request.param
    served = load_served(compiled(run), CPU, "openvino", precision, budget=16, lanes=2)
    assert (served.backend, served.precision) == ("openvino", precision)
    assert isinstance(served.model, Compiled)
    config = model_config(ROOT / "weights" / run)
    query = question(N, shape=config.shape, n_classes=len(config.classes))
    alone = [stacked(served.model(*(column[k : k + 1] for column in query))) for k in range(N)]
    return Known(run, precision, served.model, query, torch.cat(alone))


@settings(max_examples=12)
@given(rows=st.lists(st.integers(0, N - 1), min_size=1, max_size=N), seed=st.integers(0, 1000))
def test_an_answer_has_the_same_bits_alone_and_in_any_crowd(rows: list[int], seed: int, known: Known) -> None:
    assert torch.equal(known.of(rows), known.alone[rows])
    order = random.Random(seed).sample(range(N), N)  # more than the largest size, so several parts
    assert max(known.model.ready) < N
    assert torch.equal(known.of(order), known.alone[order])


def test_it_does_from_several_threads_at_once(known: Known) -> None:
    rng = random.Random(0)
    crowds = [rng.sample(range(N), rng.randint(1, 20)) for _ in range(24)]
    with ThreadPoolExecutor(2) as threads:
        for rows, answer in zip(crowds, threads.map(known.of, crowds), strict=True):
            assert torch.equal(answer, known.alone[rows])


def test_its_answers_are_those_of_the_trained_network(known: Known) -> None:
    """In fp32 but for rounding; in bf16 as near as the trained network in bf16, or three times that."""
    network = load_model(ROOT / "weights" / known.run).requires_grad_(False)

    @torch.no_grad()
    def trained() -> tuple[Tensor, ...]:
        return tuple(slope(network, *known.query)) if "energy" in known.run else (network(*known.query),)

    expected = trained()
    answer = known.model(*known.query)
    allowed = [{"int8": 0.5}.get(known.precision, 1e-4)] * len(expected)
    if known.precision == "bf16":
        network.to(torch.bfloat16)
        allowed = [3 * error(a, b) for a, b in zip(trained(), expected, strict=True)]
    parts = (answer,) if isinstance(answer, Tensor) else tuple(answer)
    errors = [error(a, b) for a, b in zip(parts, expected, strict=True)]
    assert all(one <= most for one, most in zip(errors, allowed, strict=True)), (errors, allowed)


def error(answer: Tensor, expected: Tensor) -> float:
    """Return the largest error of an image, relative to its answer."""
    wrong, size = (
        (x if x.ndim > 1 else x.unsqueeze(1)).flatten(1).norm(dim=1) for x in (answer - expected, expected)
    )
    return float((wrong / size).max())


@pytest.mark.parametrize("budget", [1, 3, 16, 32])
def test_no_evaluation_is_larger_than_the_budget(budget: int, compiled: Callable[[str], Path]) -> None:
    model = load_served(compiled("diffusion-mnist"), CPU, "openvino", "fp32", budget).model
    assert isinstance(model, Compiled)
    assert max(model.ready) <= budget
    query = question(5, shape=(1, 28, 28), n_classes=10)
    torch.testing.assert_close(
        model(*query), load_model(ROOT / "weights/diffusion-mnist")(*query), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("name", ["energy-mnist-pcd", "diffusion-mnist"])
@pytest.mark.parametrize("precision", OWN)
def test_the_budget_changes_no_bit(name: str, precision: str, compiled: Callable[[str], Path]) -> None:
    """Also where some sizes have other bits, as those of energy-mnist-pcd in bf16."""
    query = question(7, shape=(1, 28, 28), n_classes=10)
    first, *others = (
        stacked(load_served(compiled(name), CPU, "openvino", precision, budget).model(*query))
        for budget in (1, 4, 32)
    )
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize("precision", OWN)
def test_a_network_that_is_not_complete_answers_with_the_same_bits(
    precision: str, compiled: Callable[[str], Path]
) -> None:
    served = load_served(compiled("diffusion-mnist"), CPU, "openvino", precision, 32, 2, complete=False)
    assert isinstance(served.model, Compiled)
    assert served.model.ready == (16,)
    query = question(7, shape=(1, 28, 28), n_classes=10)
    first = stacked(served.model(*query))
    thread = threading.Thread(target=served.complete)
    thread.start()
    while thread.is_alive():
        assert torch.equal(stacked(served.model(*query)), first)
    assert served.model.ready == served.model.sizes == (1, 2, 4, 12, 16)
    assert torch.equal(stacked(served.model(*query)), first)


def test_a_sample_is_read_as_it_was_written(tmp_path: Path) -> None:
    query = question(3)
    answers, rounded = (query.sigma + 1, query.x + 2), (query.sigma + 3, query.x + 4)
    Comparison(query, answers, rounded).write(tmp_path / SAMPLE)
    sample = Comparison.read(tmp_path / SAMPLE)
    for pair in zip(
        (*sample.query, *sample.answers, *sample.rounded), (*query, *answers, *rounded), strict=True
    ):
        assert torch.equal(*pair)


def test_the_error_of_an_answer_is_the_largest_of_an_image_over_its_size() -> None:
    energy, gradient = torch.tensor([2.0, 4.0]), torch.tensor([[3.0, 4.0], [0.0, 1.0]]).view(2, 1, 1, 2)
    sample = Comparison(question(2), (energy, gradient), (energy, gradient))
    assert sample.error(Slope(energy, gradient)) == 0
    wrong = gradient + torch.tensor([[0.5, 0.0], [0.0, 0.2]]).view(2, 1, 1, 2)
    assert sample.error(Slope(energy, wrong)) == pytest.approx(0.2)
    assert sample.error(Slope(energy + 1, wrong)) == pytest.approx(0.5)
    for answer in (Slope(energy, gradient * math.nan), Slope(energy * math.nan, gradient)):
        assert math.isnan(sample.error(answer))


# It ends while smaller sizes are being compiled, as a program that has drawn a few pictures; what it has
# begun in a pool ends first.
ENDS_AT_ONCE = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import torch
from genserve.runs.loading import load_served
served = load_served(Path(sys.argv[1]), torch.device("cpu"), "openvino", "fp32", 32, 2, complete=False)
completing = threading.Thread(target=served.complete)
completing.start()
ThreadPoolExecutor(1).submit(completing.join)
"""


def test_a_program_that_ends_meanwhile_ends_in_silence(compiled: Callable[[str], Path]) -> None:
    command = [sys.executable, "-c", ENDS_AT_ONCE, str(compiled("diffusion-mnist"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
