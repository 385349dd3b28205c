"""`genserve score`, on runs that were trained on a few lines."""

import json
from pathlib import Path

import pytest
from small_texts import fit, write_corpus

from genserve.commands.score import run
from genserve.language.tokens import read_tokens
from genserve.measure.likelihood import fit_of
from genserve.runs.directory import load_model


def test_runs_are_measured_on_their_own_test_text_and_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_corpus(tmp_path)
    runs = [fit(name, tmp_path, corpus) for name in ("train_text", "train_ngram")]
    capsys.readouterr()
    run(["--runs", *map(str, runs)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "train_text",
        *(f"train_ngram, order {order}" for order in (1, 2, 3)),
    ]
    test = "".join(f"{line}\n" for line in corpus.read_text().splitlines())[-400:]
    for directory, n in zip(runs, (1, 3), strict=True):
        record = json.loads((directory / "evaluations.jsonl").read_text())
        assert record["split"] == "test"
        assert len(record["rows"]) == n
        assert {"command", "git", "weights", "time"} <= record.keys()
        row = record["rows"][-1]
        text = test[-row["characters"] :]
        expected = fit_of(load_model(directory), read_tokens(directory), text)
        assert row["perplexity"] == pytest.approx(expected.perplexity, rel=1e-6)
        assert ("bits_per_character" in row) == (n == 1)
        assert row["words"] == expected.words
    run(["--runs", str(runs[1]), "--split", "valid", "--record", "false"])
    assert len((runs[1] / "evaluations.jsonl").read_text().splitlines()) == 1


def test_the_shipped_bigram_is_as_good_as_its_card_says() -> None:
    """On 20,000 characters that it has not learnt from; the card has the whole test text."""
    directory = Path(__file__).parents[2] / "weights/ngram-austen"
    from genserve.data.text import TextConfig, load_text

    text = load_text(TextConfig(), "valid")[:20_000]
    fit = fit_of(load_model(directory), read_tokens(directory), text, order=2)
    assert 100 < fit.perplexity < 150


def test_what_cannot_be_measured_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="error: split must be test or valid, got 'train'"):
        run(["--split", "train"])
    with pytest.raises(SystemExit, match="is no run directory"):
        run(["--runs", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"error: .*tokens\.json"):
        run(["--runs", "weights/classifier-mnist"])
