"""Several corpora are one text, in their order, and a dictionary among them has entries."""

import lzma
from pathlib import Path

import pytest

from genserve.data.corpora import CorporaConfig, Entry, entry_of, load_corpora

GLOSSES = 'king, male monarch, rex: a male ruler; "the king is dead"\nrun: move fast\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The corpora by their own names, and very short."""
    for name, text in (
        ("wordnet-glosses", GLOSSES),
        ("shakespeare", "To be.\nOr not.\n"),
        ("austen-train", "It is a truth\n"),
        ("austen-valid", "Valid\n"),
        ("austen-test", "Test\n"),
    ):
        (tmp_path / f"{name}.txt.xz").write_bytes(lzma.compress(text.encode()))
    return tmp_path


def test_texts_are_read_in_their_order_and_whole_unless_a_split_is_named(folder: Path) -> None:
    corpora = load_corpora(CorporaConfig(texts=("shakespeare", "austen:train", "wordnet"), root=str(folder)))
    assert corpora.text == f"To be.\nOr not.\nIt is a truth\n{GLOSSES}"
    assert list(corpora.paragraphs())[:3] == [["to", "be"], ["or", "not"], ["it", "is", "a", "truth"]]
    everything = load_corpora(CorporaConfig(texts=("austen",), root=str(folder)))
    assert everything.text == "It is a truth\nValid\nTest\n"
    assert everything.entries == ()


def test_a_dictionary_has_entries_without_phrases_and_examples(folder: Path) -> None:
    corpora = load_corpora(CorporaConfig(texts=("wordnet",), root=str(folder)))
    assert corpora.entries == (
        Entry(("king", "rex"), ("a", "male", "ruler")),
        Entry(("run",), ("move", "fast")),
    )
    assert entry_of("no colon") == Entry((), ())


def test_files_of_ones_own_are_a_corpus(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("One.\nTwo.\n")
    corpora = load_corpora(CorporaConfig(texts=("files",), root=str(tmp_path / "mine.txt")))
    assert list(corpora.paragraphs()) == [["one"], ["two"]]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ((), "at least one corpus"),
        (("bible",), r"one of austen, wordnet, .* got 'bible'"),
        (("austen:best",), r"NAME or NAME:SPLIT with one of train, valid, test, got 'austen:best'"),
        (("wordnet", "wordnet"), "names a corpus twice: wordnet, wordnet"),
        (("files",), "data.root must name a text file"),
    ],
)
def test_a_corpus_that_does_not_exist_is_named(texts: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CorporaConfig(texts=texts)


def test_a_text_that_is_missing_is_named_with_what_gets_it(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"data.name wordnet is not in .*: run ./scripts/prepare_text"
    ):
        load_corpora(CorporaConfig(texts=("wordnet",), root=str(tmp_path)))
