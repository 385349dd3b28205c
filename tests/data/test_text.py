"""Corpora of text, the shipped one and files of one's own."""

import lzma
from pathlib import Path

import pytest

from genserve.data.text import CORPORA, SPLITS, TextConfig, load_text, parted, unpacked


def test_the_shipped_novels_are_complete() -> None:
    parts = {split: load_text(TextConfig(), split) for split in SPLITS}
    assert {split: len(text) for split, text in parts.items()} == {
        "train": 3_701_931,
        "valid": 100_248,
        "test": 202_054,
    }
    assert len(set(parts["train"])) == 79
    assert set(parts["valid"] + parts["test"]) <= set(parts["train"])
    assert load_text(TextConfig(), "all") == "".join(parts.values())
    assert parts["train"].startswith("EMMA\nBy Jane Austen\n")
    assert parts["test"].endswith("THE END\n")


def test_the_end_of_a_work_is_held_out() -> None:
    text = "".join(f"{k:09}\n" for k in range(1000))
    parts = parted(text)
    assert "".join(parts[split] for split in SPLITS) == text
    lines = {split: len(part.splitlines()) for split, part in parts.items()}
    assert lines["test"] == pytest.approx(50, abs=1)
    assert lines["valid"] == pytest.approx(25, abs=1)
    assert parts["test"].endswith("000000999\n")


def test_files_of_ones_own_are_works_of_which_each_has_a_held_out_end(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.txt").write_bytes("".join(f"{name}{k:03}é\r\n\r\n" for k in range(100)).encode())
    (tmp_path / "notes.md").write_text("not this")
    config = TextConfig(name="files", root=str(tmp_path))
    assert load_text(config, "train").startswith("a000é\na001é\n")
    for split in SPLITS:
        text = load_text(config, split)
        assert "a" in text
        assert "b" in text
        assert "not" not in text
    assert load_text(config, "test").endswith("b099é\n")
    one = TextConfig(name="files", root=str(tmp_path / "a.txt"))
    assert len(load_text(one, "all").splitlines()) == 100


def test_a_corpus_in_one_file_is_split_as_one_work(tmp_path: Path) -> None:
    text = "".join(f"line {k:03}\n" for k in range(200))
    (tmp_path / CORPORA["shakespeare"].file).write_bytes(lzma.compress(text.encode()))
    config = TextConfig(name="shakespeare", root=str(tmp_path))
    assert load_text(config, "all") == text
    assert {split: load_text(config, split) for split in SPLITS} == parted(text)


def test_what_is_not_in_its_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"wordnet-glosses\.txt\.xz: run \./scripts/prepare_text"):
        load_text(TextConfig(name="wordnet", root=str(tmp_path)), "all")
    with pytest.raises(FileNotFoundError, match="neither a text file nor a folder"):
        load_text(TextConfig(name="files", root=str(tmp_path)), "train")
    with pytest.raises(ValueError, match=r"data\.name must be one of austen, .*, files, got 'joyce'"):
        TextConfig(name="joyce")
    with pytest.raises(ValueError, match=r"data\.root must name"):
        TextConfig(name="files")
    with pytest.raises(ValueError, match="split must be one of train, valid, test or all, got 'dev'"):
        load_text(TextConfig(), "dev")


def test_a_text_too_short_for_its_splits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("one paragraph\n")
    config = TextConfig(name="files", root=str(tmp_path))
    with pytest.raises(ValueError, match=r"the train text of data\.name files is empty"):
        load_text(config, "train")


def test_torn_files_and_other_encodings_are_named(tmp_path: Path) -> None:
    packed = lzma.compress(b"text\n" * 1000)
    for data in (packed[:-10], b"plain text", lzma.compress(b"\xff\xfe")):
        (tmp_path / "x.txt.xz").write_bytes(data)
        with pytest.raises(ValueError, match=r"x\.txt\.xz is not a whole text compressed with xz"):
            unpacked(tmp_path / "x.txt.xz")
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.txt is not a text in UTF-8"):
        load_text(TextConfig(name="files", root=str(tmp_path)), "all")
