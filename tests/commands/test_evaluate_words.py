"""`genserve evaluate-words`: a table of what was measured, a record of it, and mistakes in one line."""

import json
import lzma
from pathlib import Path

import pytest
import torch

from genserve.commands.evaluate_words import command_line, main, run
from genserve.files import write_json
from genserve.models.words import fixed
from genserve.runs.tensors import write_weights

WORDS = ("man", "woman", "king", "queen", "bread", "cake")
ROWS = [[1, -1, 0], [1, 1, 0], [3, -1, 0], [3, 1, 0], [0, 0.2, 3], [0, -0.2, 3]]


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run directory of six words, in a working directory with test sets and a dictionary."""
    monkeypatch.chdir(tmp_path)
    directory, sets, texts = (tmp_path / name for name in ("words", "sets", "data/text"))
    for folder in (directory, sets, texts):
        folder.mkdir(parents=True)
    write_json(directory / "config.json", {"format": 1, "model": {"family": "words", "n_words": 6, "dim": 3}})
    write_weights(directory / "weights.safetensors", {"vectors": fixed(torch.tensor(ROWS))})
    (directory / "words.txt").write_text("".join(f"{word}\n" for word in WORDS))
    (sets / "wordsim353.tsv").write_text("king\tman\t9\nking\tqueen\t5\nking\tbread\t1\n")
    (sets / "simlex999.txt").write_text("king\tman\t1\nking\tqueen\t5\nking\tbread\t9\nking\tzorp\t9\n")
    (sets / "questions-words.txt").write_text(
        ": family\nman woman king queen\nman woman king cake\n: gram1\nman woman zorp queen\n"
    )
    (texts / "wordnet-glosses.txt.xz").write_bytes(lzma.compress(b"queen: king woman woman king\n"))
    return directory


def test_what_is_measured_is_printed_and_recorded(words: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(command_line(["--folder", "sets", "--run", "words", "--threads", "1"]), "a command")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-3:] for line in lines[1:]] == [
        ["1.000", "3", "3"],
        ["-1.000", "3", "4"],
        ["0.500", "2", "2"],
        ["0.000", "0", "1"],
        ["1.000", "1", "1"],
        ["0.000", "30", "30"],
    ]
    (record,) = map(json.loads, (words / "evaluations.jsonl").read_text().splitlines())
    assert record["command"] == "a command"
    assert [row["value"] for row in record["rows"]] == pytest.approx([1, -1, 0.5, 0, 1, 0])
    assert len(record["weights"]) == 12


def test_without_definitions_no_dictionary_is_needed(words: Path) -> None:
    Path("data/text/wordnet-glosses.txt.xz").unlink()
    run(["--folder", "sets", "--run", "words", "--definitions", "0"])
    assert len((words / "evaluations.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--folder", "nowhere"], r"error: .*nowhere/wordsim353.tsv: No such file"),
        (["--run", "sets"], r"error: sets is no run directory"),
        (["--definitions", "-1"], r"error: definitions and threads must be at least 0"),
    ],
)
def test_a_mistake_is_one_line(words: Path, flags: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        run(["--folder", "sets", "--run", "words", *flags])


def test_a_run_without_its_words_or_of_another_family_is_named(words: Path) -> None:
    (words / "words.txt").unlink()
    with pytest.raises(SystemExit, match=r"words/words.txt is missing: words holds no vectors of words"):
        run(["--folder", "sets", "--run", "words"])
    with pytest.raises(SystemExit, match=r"holds no vectors of words"):
        run(["--folder", "sets", "--run", "weights/classifier-mnist"])
