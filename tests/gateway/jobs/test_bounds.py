"""How large a job may be, and which model cannot be served: both are said before it is trained."""

from pathlib import Path
from typing import Any

import pytest

from genserve.gateway.jobs.bounds import BOUNDS, check_served
from genserve.gateway.jobs.queue import Queue
from genserve.gateway.jobs.routes import JobRequest, add
from genserve.gateway.jobs.settings import checked, shortened
from genserve.gateway.options import Options
from genserve.learning.programs import PROGRAMS
from genserve.serving.fields import BadRequest


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Queue:
    """Return a queue that gives no turns."""
    monkeypatch.setattr(Queue, "start", lambda self: None)
    monkeypatch.setattr(Queue, "put", lambda self, job: None)
    return Queue(Options(runs=tmp_path / "runs", data=tmp_path))


@pytest.mark.parametrize(
    ("program", "overrides", "key", "allowed"),
    [
        ("diffusion", {"epochs": 1001}, "epochs", "1 to 1000"),
        ("diffusion", {"max_batches_per_epoch": 10**9}, "max_batches_per_epoch", "1 to 100000"),
        ("diffusion", {"batch_size": 4097}, "batch_size", "1 to 4096"),
        ("diffusion", {"net.channels": [64, 1025]}, "net.channels", "1 to 1024"),
        ("diffusion", {"net.channels": [64, 0]}, "net.channels", "1 to 1024"),
        ("diffusion", {"net.channels": [8] * 9}, "net.channels", "at most 8"),
        ("diffusion", {"net": {"blocks": 10**30}}, "net.blocks", "1 to 8"),
        ("diffusion", {"data": {"size": 10_000}}, "data.size", "1 to 256"),
        ("energy", {"channels": [4096]}, "channels", "1 to 1024"),
        ("energy", {"langevin.steps": 10**6}, "langevin.steps", "1 to 1000"),
        ("energy", {"langevin.buffer": 10**9}, "langevin.buffer", "0 to 65536"),
        ("gan", {"critic.channels": [64, 5000]}, "critic.channels", "1 to 1024"),
        ("gan", {"net.z_dim": 10**6}, "net.z_dim", "1 to 1024"),
        ("vae", {"prior_batch": 10**6}, "prior_batch", "1 to 4096"),
        ("text", {"net.width": 10**5}, "net.width", "1 to 4096"),
        ("words", {"dim": 10**5}, "dim", "1 to 1024"),
        ("words", {"epochs": 10**5}, "epochs", "1 to 1000"),
        ("classifier", {"net.channels": [10**4]}, "net.channels", "1 to 1024"),
    ],
)
def test_a_size_out_of_its_bounds_is_named_with_them(
    queue: Queue, program: str, overrides: dict[str, Any], key: str, allowed: str
) -> None:
    with pytest.raises(BadRequest) as refusal:
        add(queue, JobRequest(program=program, overrides=overrides))
    assert (refusal.value.status, refusal.value.field) == (400, f"overrides.{key}")
    assert allowed in refusal.value.allowed
    assert queue.jobs.all() == []


def test_the_largest_sizes_are_taken(queue: Queue) -> None:
    overrides = {"epochs": 1000, "batch_size": 4096, "net.channels": [1024] * 8, "net.blocks": 8}
    assert checked(queue.options, "diffusion", None, overrides)["epochs"] == 1000


def test_every_bound_is_that_of_a_setting(queue: Queue) -> None:
    known: set[str] = set()
    for program in PROGRAMS:
        groups = [checked(queue.options, program, None, {})]
        for group in groups:
            known |= group.keys()
            groups += [value for value in group.values() if isinstance(value, dict)]
    assert BOUNDS.keys() <= known


@pytest.mark.parametrize("config", [None, "classifier-mnist", "judge-mnist"])
def test_a_classifier_that_cannot_be_served_is_refused_before_it_is_trained(
    queue: Queue, config: str | None
) -> None:
    with pytest.raises(BadRequest) as refusal:
        add(queue, JobRequest(program="classifier", config=config, serve_as="mine"))
    assert (refusal.value.status, refusal.value.field) == (400, "overrides.net.blocks")
    assert "airbench" in refusal.value.allowed
    assert queue.jobs.all() == []
    assert add(queue, JobRequest(program="classifier", config=config)).serve_as is None
    with_it = {"net.blocks": "airbench", "net.channels": [16, 32, 32]}
    if config is None:
        assert add(queue, JobRequest(program="classifier", overrides=with_it, serve_as="mine"))
    assert add(queue, JobRequest(program="classifier", config="labels-mnist", serve_as="mine"))


@pytest.mark.parametrize("program", [name for name in PROGRAMS if name != "classifier"])
def test_what_the_other_programs_train_can_be_served(queue: Queue, program: str) -> None:
    check_served(program, checked(queue.options, program, None, {}))


@pytest.mark.parametrize(("epochs", "prior"), [(1, 0), (3, 2), (4, 3), (40, 3)])
def test_an_autoencoder_of_few_epochs_has_one_before_those_of_its_prior(epochs: int, prior: int) -> None:
    assert shortened("vae", {"epochs": epochs}) == {"epochs": epochs, "prior_epochs": prior}
    assert shortened("gan", {"epochs": epochs}) == {"epochs": epochs}
