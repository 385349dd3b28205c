"""The training programs of text: runs that resume, that stay what they are, and that learn."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from small_texts import PROGRAMS, config_of, fit, write_corpus
from unchanged import state_of

from genserve.language.tokens import read_tokens
from genserve.learning.checkpoint import Checkpoint, held
from genserve.measure.likelihood import fit_of
from genserve.models.ngram import NGramText
from genserve.models.text import RecurrentText, nll
from genserve.runs.directory import load_model, read_metrics
from genserve.runs.tensors import read_state, read_weights


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path)


def test_a_run_that_was_killed_ends_where_an_unbroken_one_does(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle of an epoch, where the network's state goes on from step to step."""
    unbroken, save = fit("train_text", tmp_path / "unbroken", corpus), Checkpoint.save

    def killed(self: Checkpoint, step: int, *models: object, **more: Any) -> None:
        save(self, step, *models, **more)
        if step == 15:
            raise KeyboardInterrupt

    per_epoch = read_metrics(unbroken)[-1]["step"] // 2
    assert 15 % per_epoch
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoint, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            fit("train_text", tmp_path / "killed", corpus)
    resumed = fit("train_text", tmp_path / "killed", corpus)
    for file in ("weights.safetensors", "tokens.json", "samples.txt"):
        assert (resumed / file).read_bytes() == (unbroken / file).read_bytes(), file
    bits = [
        [line["valid_bits_per_character"] for line in read_metrics(run) if "valid_bits_per_character" in line]
        for run in (resumed, unbroken)
    ]
    assert bits[0] == bits[1]
    assert len(bits[0]) == 2


def test_the_weights_are_those_that_were_best_on_the_validation_text(corpus: Path, tmp_path: Path) -> None:
    """A rate that ruins the network: the first epoch stays."""
    directory = fit("train_text", tmp_path, corpus, epochs=3, lr=1.0, warmup=40, ema_decay=0.0)
    lines = [line for line in read_metrics(directory) if "valid_bits_per_character" in line]
    bits = [line["valid_bits_per_character"] for line in lines]
    state = read_state(directory / "state.pt")
    assert min(bits) < bits[-1]
    assert state["best"].item() == pytest.approx(min(bits))
    weights = read_weights(directory / "weights.safetensors")
    assert all(weights[name].equal(value) for name, value in state["kept"].items())
    assert not weights["bias"].equal(state["ema"]["bias"])
    config = config_of("train_text", tmp_path, corpus)
    valid = PROGRAMS["train_text"]["load_text"](config.data, "valid")
    network, tokens = load_model(directory), read_tokens(directory)
    assert isinstance(network, RecurrentText)
    nats = nll(network, torch.tensor(tokens.encode(valid)), tokens.first)
    assert nats / math.log(2) / len(valid) == pytest.approx(min(bits), abs=1e-4)


def test_a_network_learns_a_simple_text(corpus: Path, tmp_path: Path) -> None:
    directory = fit(
        "train_text",
        tmp_path,
        corpus,
        epochs=6,
        lr=0.005,
        ema_decay=0.5,
        dropout=0.0,
        net={"width": 32, "layers": 1},
    )
    lines = read_metrics(directory)
    bits = [line["valid_bits_per_character"] for line in lines if "valid_bits_per_character" in line]
    assert len(bits) == 6
    assert bits[-1] < 0.6 * bits[0]
    network = load_model(directory)
    assert isinstance(network, RecurrentText)
    assert "cat" in (directory / "samples.txt").read_text()


def test_streams_show_every_token_to_its_neighbour() -> None:
    streams = PROGRAMS["train_text"]["Streams"]
    config = PROGRAMS["train_text"]["TrainConfig"](batch_size=3, window=4, epochs=2)
    tokens = torch.arange(40)
    each = streams(config, tokens, torch.device("cpu"))
    assert (each.per_epoch, each.total) == (3, 6)
    rows = []
    for step in range(3):
        x, y = each(step)
        assert y.equal(x + 1)
        rows.append(x)
    read = torch.cat(rows, 1)  # (3, 12): a stream is read from its beginning to its end
    assert (read.diff(dim=1) == 1).all()
    assert read[1:, 0].equal(read[:-1, -1] + 1)
    many = streams(
        PROGRAMS["train_text"]["TrainConfig"](batch_size=3, window=4, epochs=20), tokens, each.device
    )
    assert {many(step)[0][0, 0].item() for step in range(0, 60, 3)} == {0, 1, 2, 3}  # epochs begin anywhere
    assert each(3)[0].equal(streams(config, tokens, torch.device("cpu"))(3)[0])
    with pytest.raises(ValueError, match="batch_size 3 x window 14 is more than the 40 tokens"):
        streams(PROGRAMS["train_text"]["TrainConfig"](batch_size=3, window=14), tokens, torch.device("cpu"))


def test_the_state_goes_on_from_step_to_step_and_begins_again_with_every_epoch(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh: list[bool] = []

    class Noting(RecurrentText):
        def forward(self, tokens: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            if self.training:
                fresh.append(not state.any())
            return super().forward(tokens, state)

    monkeypatch.setitem(PROGRAMS["train_text"]["fit"].__globals__, "RecurrentText", Noting)
    directory = fit("train_text", tmp_path, corpus, epochs=3)
    per_epoch = read_metrics(directory)[-1]["step"] // 3
    assert fresh == [k % per_epoch == 0 for k in range(3 * per_epoch)]


def test_a_run_starts_from_another_ones_tokens_and_weights(corpus: Path, tmp_path: Path) -> None:
    start = fit("train_text", tmp_path, corpus)
    other = write_corpus(tmp_path / "other", lines=90)
    settings = {"lr": 1e-12, "epochs": 1, "start_from": str(start)}
    new = fit("train_text", tmp_path / "new", other, **settings)
    assert (new / "tokens.json").read_bytes() == (start / "tokens.json").read_bytes()
    old = read_weights(start / "weights.safetensors")
    for name, value in read_weights(new / "weights.safetensors").items():
        torch.testing.assert_close(value, old[name], rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"^start_from .* has net "):
        fit("train_text", tmp_path / "wide", other, **settings, net={"width": 12, "layers": 2})
    counts = fit("train_ngram", tmp_path, corpus)
    with pytest.raises(ValueError, match=r"^start_from .* has network "):
        fit("train_text", tmp_path / "counts", other, **settings | {"start_from": str(counts)})


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_finished_run_is_not_rewritten_from_another_text(name: str, corpus: Path, tmp_path: Path) -> None:
    directory = fit(name, tmp_path, corpus)
    before = state_of(directory)
    fit(name, tmp_path, corpus)
    assert state_of(directory) == before
    text = corpus.read_text()
    n = int(len(text) * 0.925) - 1
    corpus.write_text(text.replace("cat", "rat", 1))
    with pytest.raises(ValueError, match=r"holds another run \(data have other characters\): give"):
        fit(name, tmp_path, corpus)
    corpus.write_text("a cat.\n" + text)
    with pytest.raises(ValueError, match=r"another run \(data had \d+ characters, have \d+ characters"):
        fit(name, tmp_path, corpus)
    corpus.write_text(text[:n] + text[n:].replace("cat", "rat"))
    with pytest.raises(ValueError, match=r"another run \(held-out data have other characters\)"):
        fit(name, tmp_path, corpus)
    assert state_of(directory) == before


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_directory_in_use_is_left_alone(name: str, corpus: Path, tmp_path: Path) -> None:
    with held(tmp_path / name):
        with pytest.raises(ValueError, match="is in use by another program"):
            fit(name, tmp_path, corpus)
        assert not list((tmp_path / name).iterdir())


@pytest.mark.parametrize("name", PROGRAMS)
def test_weights_of_unknown_origin_are_not_overwritten(name: str, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "weights.safetensors").write_bytes(b"precious")
    with pytest.raises(ValueError, match="give another --name"):
        fit(name, tmp_path, corpus)
    assert (tmp_path / name / "weights.safetensors").read_bytes() == b"precious"


def test_counts_are_measured_at_every_order(corpus: Path, tmp_path: Path) -> None:
    directory = fit("train_ngram", tmp_path, corpus)
    network, words = load_model(directory), read_tokens(directory)
    assert isinstance(network, NGramText)
    line = json.loads((directory / "metrics.jsonl").read_text())
    valid = PROGRAMS["train_ngram"]["load_text"](config_of("train_ngram", tmp_path, corpus).data, "valid")
    for order in (1, 2, 3):
        perplexity = fit_of(network, words, valid, order).perplexity
        assert line[f"valid_perplexity_{order}"] == pytest.approx(perplexity, abs=1e-3)
    assert line["valid_perplexity_2"] < line["valid_perplexity_1"]


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("train_text", {"window": 0}, "window must be above 0"),
        ("train_text", {"epochs": 0}, "epochs must be above 0"),
        ("train_text", {"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ("train_text", {"n_tokens": 255}, "n_tokens must be at least 256, got 255"),
        ("train_text", {"seed": -1}, "seed must be at least 0"),
        ("train_text", {"name": " "}, "name must not be empty"),
        ("train_ngram", {"name": ""}, "name must not be empty"),
        ("train_ngram", {"order": 5}, "order must be 1 to 4, got 5"),
        ("train_ngram", {"min_count": 0}, "min_count must be at least 1, got 0"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(
    name: str, more: dict[str, Any], message: str, tmp_path: Path
) -> None:
    config_of(name, tmp_path, tmp_path / "text.txt")
    with pytest.raises(ValueError, match=message):
        PROGRAMS[name]["TrainConfig"](**more)


def test_a_run_that_diverges_says_so(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=r"at step \d+: try --lr below 1e\+20"):
        fit("train_text", tmp_path, corpus, lr=1e20, warmup=0)
