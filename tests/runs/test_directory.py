"""A run is read as it was written, and a torn or foreign file is refused in one sentence."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from real_server import ROOT

from genserve.files import write_json
from genserve.models.config import ModelConfig
from genserve.runs.directory import (
    FORMAT,
    load_classifier,
    load_denoiser,
    load_model,
    model_config,
    read_config,
    read_metrics,
)
from genserve.runs.tensors import read_state, read_weights, save_state, write_weights


def a_model(**settings: Any) -> ModelConfig:
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
    write_weights(directory / "weights.safetensors", denoiser.state_dict())
    write_json(directory / "config.json", {"format": FORMAT, "model": vars(model), "train": {}})
    return denoiser


# ---- state -------------------------------------------------------------------------------------------------


def test_a_state_is_written_without_a_second_copy_of_it(tmp_path: Path) -> None:
    state = {"model": {"weight": torch.zeros(25_000_000)}}  # 100 MB
    tracemalloc.start()  # of buffers in Python, which hold what is handed on
    save_state(tmp_path / "state.pt", state)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10_000_000
    assert (tmp_path / "state.pt").stat().st_size > 100_000_000


def test_state_comes_back_with_every_type_and_value(tmp_path: Path) -> None:
    state = {"step": 7, "lr": 0.1, "moments": {0: {"avg": torch.rand(3)}}, "betas": [0.9, 0.99]}
    save_state(tmp_path / "state.pt", state)
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    assert torch.equal(loaded["moments"][0].pop("avg"), state["moments"][0].pop("avg"))
    assert loaded == state


# ---- the model ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_denoiser_comes_back_bit_for_bit(tmp_path: Path, layout: torch.memory_format) -> None:
    written = write_run(tmp_path, a_model()).to(memory_format=layout)
    write_weights(tmp_path / "weights.safetensors", written.state_dict())
    read = load_denoiser(tmp_path)
    x, sigma, y = torch.randn(3, 1, 8, 8), torch.tensor([0.1, 1.0, 10.0]), torch.arange(3)
    with torch.no_grad():
        assert torch.equal(read(x, sigma, y), written.to(memory_format=torch.contiguous_format)(x, sigma, y))
    assert not read.training
    assert not any(parameter.requires_grad for parameter in read.parameters())
    assert model_config(tmp_path) == a_model()


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path, a_model())
    other = a_model(classes=("a", "b", "c"))
    write_json(tmp_path / "config.json", {"format": FORMAT, "model": vars(other), "train": {}})
    with pytest.raises(ValueError, match=r"weights.safetensors is of another network: .*embed_class.* is \("):
        load_denoiser(tmp_path)


@pytest.mark.parametrize("number", [FORMAT + 1, None, "1"])
def test_a_format_of_another_version_is_refused_in_one_sentence(tmp_path: Path, number: object) -> None:
    write_json(tmp_path / "config.json", {"format": number, "model": {}})
    with pytest.raises(ValueError, match=rf"config.json has format {number!r}; this version reads {FORMAT}$"):
        load_denoiser(tmp_path)


def test_a_directory_without_configuration_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is no run directory"):
        read_config(tmp_path)


@pytest.mark.parametrize("length", [0, 1, 7, 100, 5000, -1])
def test_a_torn_file_is_named_in_one_sentence(tmp_path: Path, length: int) -> None:
    """Cut after this many bytes, or before the last one."""
    write_run(tmp_path, a_model())
    save_state(tmp_path / "state.pt", {"step": 3, "x": torch.zeros(3000)})
    readers = {
        "config.json": lambda path: read_config(path.parent),
        "weights.safetensors": read_weights,
        "state.pt": read_state,
    }
    for name, read in readers.items():
        path = tmp_path / name
        content = path.read_bytes().rstrip(b"\n")
        path.write_bytes(content[:length])
        if len(content) > length:
            with pytest.raises(ValueError, match=rf"{name} is not a? ?whole [^\n]*$"):
                read(path)


@pytest.mark.parametrize(
    "content", [b"some text\n", b"\x80\x02}.", b"PK\x03\x04" + bytes(50), bytes(300), b"[1]"]
)
def test_a_file_of_something_else_is_named_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    for name in ("config.json", "weights.safetensors", "state.pt"):
        (tmp_path / name).write_bytes(content)
    for name, read in (
        ("config.json", lambda path: read_config(path.parent)),
        ("weights.safetensors", read_weights),
        ("state.pt", read_state),
    ):
        with pytest.raises(ValueError, match=rf"{name} (is not|must hold) [^\n]*$"):
            read(tmp_path / name)


@pytest.mark.parametrize(
    "change",
    [{"shape": 5}, {"std": 0.0}, {"colour": "red"}, {"net": {"patches": 3}}, {"family": "cubist"}],
)
def test_a_configuration_that_no_network_can_be_built_from_is_named(
    tmp_path: Path, change: dict[str, object]
) -> None:
    write_run(tmp_path, a_model())
    model = vars(a_model()) | change
    write_json(tmp_path / "config.json", {"format": FORMAT, "model": model, "train": {}})
    with pytest.raises(ValueError, match=r"config\.json is not [^\n]*$"):
        load_model(tmp_path)


# ---- metrics -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", range(1, 24))
def test_metrics_with_a_line_cut_short_keep_the_whole_lines(tmp_path: Path, cut: int) -> None:
    first, last = '{"step": 50, "loss": 0.5}', '{"step": 100, "loss": 0.4}'
    (tmp_path / "metrics.jsonl").write_text(f"{first}\n{last[:cut]}")
    assert read_metrics(tmp_path) == [{"step": 50, "loss": 0.5}]


def test_metrics_up_to_a_step_include_it(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("".join(f'{{"step": {step}}}\n' for step in (50, 100, 150)))
    assert [record["step"] for record in read_metrics(tmp_path, up_to=100)] == [50, 100]
    assert [record["step"] for record in read_metrics(tmp_path)] == [50, 100, 150]


def test_a_run_that_has_not_begun_has_no_metrics(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []


def test_a_file_that_a_run_has_not_written_yet_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"weights\.safetensors is missing: the run has written"):
        read_weights(tmp_path / "weights.safetensors")


def test_a_checkpoint_of_anything_but_a_dictionary_is_refused(tmp_path: Path) -> None:
    torch.save([torch.zeros(3)], tmp_path / "state.pt")
    with pytest.raises(ValueError, match=r"state\.pt is not a whole checkpoint: it holds list$"):
        read_state(tmp_path / "state.pt")


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    """Unpickling a Path imports a module and calls what the file names."""
    torch.save({"step": Path("x")}, tmp_path / "state.pt")
    with pytest.raises(ValueError, match=r"state\.pt is not a checkpoint: it holds more than tensors and"):
        read_state(tmp_path / "state.pt")


@pytest.mark.parametrize("model", [None, [], "diffusion"])
def test_a_configuration_without_a_model_is_refused(tmp_path: Path, model: object) -> None:
    write_json(tmp_path / "config.json", {"format": FORMAT, "model": model})
    with pytest.raises(ValueError, match=r"config\.json has no model$"):
        model_config(tmp_path)


@pytest.mark.parametrize("line", ['{"loss": 0.5}', "[]", "{", '{"step": "last"}'])
def test_a_line_in_the_middle_that_is_no_record_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2, is no record of a step"):
        read_metrics(tmp_path, up_to=9)


@pytest.mark.parametrize(
    ("load", "run", "family"),
    [
        (load_denoiser, "energy-mnist", "no diffusion model"),
        (load_classifier, "energy-mnist", "family 'energy', not a classifier"),
        (model_config, "classifier-mnist", "family 'classifier', not a denoiser or an energy"),
    ],
)
def test_a_run_of_another_family_is_refused(load: Callable[[Path], object], run: str, family: str) -> None:
    with pytest.raises(ValueError, match=rf"{run} holds .*{family}"):
        load(ROOT / "weights" / run)


def test_one_loader_reads_every_family() -> None:
    """The general loader returns the network that the loader of one family returns."""
    for name, load in (("classifier-mnist", load_classifier), ("diffusion-mnist", load_denoiser)):
        network, same = load_model(ROOT / "weights" / name), load(ROOT / "weights" / name)
        assert type(network) is type(same)
        assert not network.training
        for key, value in same.state_dict().items():
            assert value.equal(network.state_dict()[key])
