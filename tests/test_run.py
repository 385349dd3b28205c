"""The run directory: old or new and never half, and the model that comes back is the one that was written."""

import json
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from genserve import run
from genserve.run import FORMAT, ModelConfig


def a_model(**settings) -> ModelConfig:
    net = {"patch": 1, "channels": [16, 32], "attention": [4], "heads": 2}
    defaults = {"shape": (1, 8, 8), "classes": ("a", "b"), "mean": -0.4, "std": 0.7}
    return ModelConfig(
        family="diffusion", sigma_min=0.002, sigma_max=80.0, **defaults | {"net": net} | settings
    )


def write_run(directory: Path, model: ModelConfig) -> torch.nn.Module:
    """Write a run of a denoiser with random weights and return it."""
    torch.manual_seed(0)
    denoiser = model.build()
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    run.write_weights(directory / "weights.safetensors", denoiser.state_dict())
    run.write_json(directory / "config.json", {"format": FORMAT, "model": vars(model), "train": {}})
    return denoiser


# ---- atomic writes -----------------------------------------------------------------------------------------


@contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No file may grow beyond 1,000 bytes: the system itself stops a write half way."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # or an import in here would leave half a .pyc
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: run.write_atomic(path, b"new" * 1000),
        lambda path: run.write_json(path, ["new"] * 1000),
        lambda path: run.write_weights(path, {"new": torch.zeros(1000)}),
        lambda path: run.save_state(path, {"new": torch.zeros(1000)}),
    ],
)
def test_a_write_that_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch, write):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with full_disk(monkeypatch), pytest.raises((OSError, RuntimeError)):
        write(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_succeeds_replaces_the_old_file_and_leaves_nothing_else(tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(b"a longer old one")
    run.write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_never_written_with_nan(tmp_path: Path):
    run.write_json(tmp_path / "a.json", {"loss": 1.5, "name": "é"})
    assert json.loads((tmp_path / "a.json").read_text()) == {"loss": 1.5, "name": "é"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text())["loss"] == 1.5


def test_state_comes_back_with_every_type_and_value(tmp_path: Path):
    state = {"step": 7, "lr": 0.1, "moments": {0: {"avg": torch.rand(3)}}, "betas": [0.9, 0.99]}
    run.save_state(tmp_path / "state.pt", state)
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    assert torch.equal(loaded["moments"][0].pop("avg"), state["moments"][0].pop("avg"))
    assert loaded == state


# ---- the model ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_denoiser_comes_back_bit_for_bit(tmp_path: Path, layout: torch.memory_format):
    written = write_run(tmp_path, a_model()).to(memory_format=layout)
    run.write_weights(tmp_path / "weights.safetensors", written.state_dict())
    read = run.load_denoiser(tmp_path)
    x, sigma, y = torch.randn(3, 1, 8, 8), torch.tensor([0.1, 1.0, 10.0]), torch.arange(3)
    with torch.no_grad():
        assert torch.equal(read(x, sigma, y), written.to(memory_format=torch.contiguous_format)(x, sigma, y))
    assert not read.training
    assert not any(parameter.requires_grad for parameter in read.parameters())
    assert run.model_config(tmp_path) == a_model()


def test_weights_of_another_network_are_refused(tmp_path: Path):
    write_run(tmp_path, a_model())
    other = a_model(classes=("a", "b", "c"))
    run.write_json(tmp_path / "config.json", {"format": FORMAT, "model": vars(other), "train": {}})
    with pytest.raises(ValueError, match=r"weights.safetensors is of another network: .*embed_class.* is \("):
        run.load_denoiser(tmp_path)


@pytest.mark.parametrize("number", [FORMAT + 1, None, "1"])
def test_a_format_of_another_version_is_refused_in_one_sentence(tmp_path: Path, number):
    run.write_json(tmp_path / "config.json", {"format": number, "model": {}})
    with pytest.raises(ValueError, match=rf"config.json has format {number!r}; this version reads {FORMAT}$"):
        run.load_denoiser(tmp_path)


def test_a_directory_without_configuration_is_no_run(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="is no run directory"):
        run.read_config(tmp_path)


# ---- metrics -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", range(1, 24))
def test_metrics_with_a_line_cut_short_keep_the_whole_lines(tmp_path: Path, cut: int):
    first, last = '{"step": 50, "loss": 0.5}', '{"step": 100, "loss": 0.4}'
    (tmp_path / "metrics.jsonl").write_text(f"{first}\n{last[:cut]}")
    assert run.read_metrics(tmp_path) == [{"step": 50, "loss": 0.5}]


def test_metrics_up_to_a_step_include_it(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text("".join(f'{{"step": {step}}}\n' for step in (50, 100, 150)))
    assert [record["step"] for record in run.read_metrics(tmp_path, up_to=100)] == [50, 100]
    assert [record["step"] for record in run.read_metrics(tmp_path)] == [50, 100, 150]


def test_a_run_that_has_not_begun_has_no_metrics(tmp_path: Path):
    assert run.read_metrics(tmp_path) == []
