"""The training program of vectors of words, on a text of two topics and a dictionary."""

import lzma
import random
import runpy
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from real_server import ROOT
from unchanged import state_of

from genserve.cli import configure
from genserve.data.corpora import Corpora, CorporaConfig, Entry
from genserve.language.vocabulary import Vocabulary
from genserve.learning.checkpoint import Checkpoint, held
from genserve.models.cooccurrence import Subspace
from genserve.runs.directory import load_words, read_config, read_metrics, read_words
from genserve.runs.tensors import read_state

PROGRAM = runpy.run_path(str(ROOT / "training/train_words.py"))
TOPICS = (
    ("bread", "cake", "flour", "oven", "dough", "butter", "sugar", "baker"),
    ("ship", "sail", "sea", "harbour", "wave", "captain", "anchor", "storm"),
)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A folder with a text in which words of a topic stand together, and with a dictionary."""
    rng, lines = random.Random(0), []
    for k in range(400):
        words = rng.choices(TOPICS[k % 2], k=6) + rng.choices(["the", "and", "of"], k=3)
        rng.shuffle(words)
        lines.append(" ".join(words))
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "shakespeare.txt.xz").write_bytes(lzma.compress("\n".join(lines).encode()))
    glosses = "vessel, ship: that the captain has\nbread, loaf: of flour and dough\n" * 3
    (folder / "wordnet-glosses.txt.xz").write_bytes(lzma.compress(glosses.encode()))
    return folder


def config_of(output: Path, texts: Path, **more: Any) -> Any:
    settings: dict[str, Any] = {"name": "words", "min_count": 1, "dim": 6, "epochs": 3}
    data = CorporaConfig(texts=("shakespeare", "wordnet"), root=str(texts))
    return PROGRAM["TrainConfig"](output=str(output), data=data, **settings | more)


def fit(output: Path, texts: Path, **more: Any) -> Path:
    PROGRAM["main"](config_of(output, texts, **more))
    return output / "words"


def test_words_of_a_topic_are_neighbours(texts: Path, tmp_path: Path) -> None:
    directory = fit(tmp_path, texts)
    vectors, vocabulary = load_words(directory), Vocabulary(read_words(directory))
    for topic, other in (TOPICS, TOPICS[::-1]):
        own, others = ([vocabulary.index[word] for word in words] for words in (topic, other))
        scores = vectors(vectors.rows(torch.tensor(own)))
        assert scores[:, own].mean() > scores[:, others].mean() + 0.3
    lines = (directory / "samples.txt").read_text().splitlines()
    assert len(lines) == 1  # of the words that it shows, the text has one
    assert lines[0].startswith("bread: ")
    assert len(lines[0].split(", ")) == 8


def test_the_loss_falls_to_that_of_the_best_approximation(texts: Path, tmp_path: Path) -> None:
    directory = fit(tmp_path, texts, epochs=8)
    losses = [record["loss"] for record in read_metrics(directory)]
    assert len(losses) == 8
    assert all(later < earlier + 1e-6 for earlier, later in pairwise(losses))
    config = config_of(tmp_path, texts)
    _, matrix = PROGRAM["information_of"](PROGRAM["load_corpora"](config.data), config)
    squares = torch.linalg.svdvals(matrix.to_dense().double()).square()
    best = 1 - squares[:6].sum() / squares.sum()
    assert losses[-1] == pytest.approx(best.item(), abs=1e-3)


@pytest.mark.parametrize("power", [0.0, 0.5])
def test_the_vectors_are_the_strongest_columns_by_their_strength(
    power: float, texts: Path, tmp_path: Path
) -> None:
    directory = fit(tmp_path, texts, epochs=5, power=power, retrofit=0.0)
    config = config_of(tmp_path, texts)
    _, matrix = PROGRAM["information_of"](PROGRAM["load_corpora"](config.data), config)
    u, s, _ = torch.linalg.svd(matrix.to_dense().double())
    exact = F.normalize(u[:, :6] * s[:6] ** power, dim=1)
    vectors = F.normalize(load_words(directory).vectors.double(), dim=1)
    assert (vectors @ vectors.T - exact @ exact.T).abs().max() < 0.01  # cosines do not depend on signs
    subspace = Subspace(matrix, 6 + PROGRAM["EXTRA"], config.seed)
    for _ in range(5):
        subspace.step()
    assert subspace.basis.equal(read_state(directory / "state.pt")["model"]["basis"])


def test_a_run_that_was_killed_ends_where_an_unbroken_one_does(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken, save = fit(tmp_path / "unbroken", texts), Checkpoint.save

    def killed(self: Checkpoint, step: int, *models: Any) -> None:
        if step == 2:
            raise KeyboardInterrupt
        save(self, step, *models)

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoint, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "killed", texts)
    resumed = fit(tmp_path / "killed", texts)
    for file in ("weights.safetensors", "words.txt", "samples.txt"):
        assert (resumed / file).read_bytes() == (unbroken / file).read_bytes(), file
    curves = [[record["loss"] for record in read_metrics(run)] for run in (resumed, unbroken)]
    assert curves[0] == curves[1]


def test_a_finished_run_is_refused_for_other_text_and_settings_and_else_left_alone(
    texts: Path, tmp_path: Path
) -> None:
    directory = fit(tmp_path, texts)
    weights, before = (directory / "weights.safetensors").read_bytes(), state_of(directory)
    for more, message in (
        ({"window": 3}, r"window was 8, is 3"),
        ({"dim": 5}, r"dim was 6, is 5"),
        ({"epochs": 2}, r"3 steps long already, 2 are asked for"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(tmp_path, texts, **more)
    assert state_of(directory) == before
    texts = texts.rename(tmp_path / "moved")
    fit(tmp_path, texts)
    assert (directory / "weights.safetensors").read_bytes() == weights
    file = texts / "shakespeare.txt.xz"
    text = lzma.decompress(file.read_bytes())
    file.write_bytes(lzma.compress(text.replace(b"ship", b"boat")))
    before = state_of(directory)
    with pytest.raises(ValueError, match=r"holds another run \(.*data have other characters"):
        fit(tmp_path, texts)
    file.write_bytes(lzma.compress(text + b"one more\n"))
    with pytest.raises(ValueError, match=r"data had \d+ characters, have \d+"):
        fit(tmp_path, texts)
    assert state_of(directory) == before


def test_synonyms_of_the_dictionary_move_together(texts: Path, tmp_path: Path) -> None:
    cosines = []
    for own in (0.0, 0.5):
        directory = fit(tmp_path / str(own), texts, retrofit=own)
        vectors, vocabulary = load_words(directory), Vocabulary(read_words(directory))
        a, b = vectors.rows(torch.tensor([vocabulary.index["ship"], vocabulary.index["vessel"]]))
        cosines.append(float(a @ b))
    assert cosines[1] > cosines[0] + 0.02


def test_definitions_are_counted_with_their_weight() -> None:
    corpora = Corpora("a b\n", (Entry(("a",), ("c", "zorp")),))
    vocabulary = Vocabulary(["a", "b", "c"])
    counts = PROGRAM["counts_of"](corpora, vocabulary, PROGRAM["TrainConfig"](definitions=2.0)).to_dense()
    assert counts.tolist() == [[0, 1, 2], [1, 0, 0], [2, 0, 0]]
    without = PROGRAM["counts_of"](corpora, vocabulary, PROGRAM["TrainConfig"](definitions=0.0)).to_dense()
    assert without.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]


def test_a_word_that_tells_nothing_is_left_out(texts: Path, tmp_path: Path) -> None:
    with lzma.open(texts / "shakespeare.txt.xz", "at") as file:
        file.write("\nalone\nalone\n")
    words = read_words(fit(tmp_path, texts))
    assert "alone" not in words
    assert "ship" in words


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"threads": -1}, "threads must be at least 0"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"epochs": 0}, "epochs must be above 0"),
        ({"name": " "}, "name must not be empty"),
        ({"n_words": 0}, "n_words must be at least 1"),
        ({"window": 0}, "window must be at least 1"),
        ({"power": -0.5}, "power must be at least 0, got -0.5"),
        ({"retrofit": float("nan")}, "retrofit must be at least 0"),
        ({"shift": 0.0}, "shift must be above 0"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(more: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        config_of(tmp_path, tmp_path, **more)


def test_a_text_that_is_too_short_is_named(texts: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dim 60 needs as many words; \d+ stand 1 times or more"):
        fit(tmp_path, texts, dim=60)
    assert not (tmp_path / "words").exists()


def test_the_command_line_is_that_of_the_other_programs(
    texts: Path, tmp_path: Path, full_disk: Callable[[int], Any], capfd: pytest.CaptureFixture[str]
) -> None:
    def commanded(*more: str) -> None:
        words = [f"--output={tmp_path}", "--data.texts=[shakespeare,wordnet]", f"--data.root={texts}"]
        configure(
            PROGRAM["main"], PROGRAM["TrainConfig"], "A program.", [*words, "--min-count=1", "--dim=6", *more]
        )

    with full_disk(2000), pytest.raises(SystemExit) as stop:
        commanded("--epochs=2")
    assert str(stop.value.code).endswith("File too large")
    assert capfd.readouterr().err.endswith("\n")  # the bar has a line of its own
    commanded("--epochs=2")
    assert len(read_metrics(tmp_path / "words")) == 2
    assert read_config(tmp_path / "words")["model"] == {"family": "words", "n_words": 23, "dim": 6}
    with held(tmp_path / "words"), pytest.raises(SystemExit) as stop:
        commanded("--epochs=3")
    assert "is in use by another program that trains" in str(stop.value.code)


def test_the_shipped_configuration_is_that_of_the_shipped_run() -> None:
    trained = read_config(ROOT / "weights/words-open")["train"]
    assert trained["data"]["texts"] == list(CorporaConfig().texts)
    usual = PROGRAM["TrainConfig"]()
    assert {key: trained[key] for key in ("window", "dim", "power", "shift", "retrofit", "definitions")} == {
        "window": usual.window,
        "dim": usual.dim,
        "power": usual.power,
        "shift": usual.shift,
        "retrofit": usual.retrofit,
        "definitions": usual.definitions,
    }
