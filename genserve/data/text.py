"""Read a corpus of text: Jane Austen's novels (shipped), WordNet's glosses, Shakespeare, or one's own files.

A corpus is paragraphs, one per line. The end of each work is held out: its last 5 % are the test text, the
2.5 % before them the validation text. Validation chooses, the test text reports.
"""

import lzma
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from genserve.files import naming
from genserve.places import located

SPLITS = ("train", "valid", "test")
TEST, VALID = 0.05, 0.025  # shares of each work that are held out


class Corpus(NamedTuple):
    """The place of a corpus; scripts/prepare_text writes such files."""

    root: str  # folder, below the working directory or the project
    file: str  # name of a file compressed with xz; {} is the split, if each has a file of its own


CORPORA = {
    "austen": Corpus("texts", "austen-{}.txt.xz"),
    "wordnet": Corpus("data/text", "wordnet-glosses.txt.xz"),
    "shakespeare": Corpus("data/text", "shakespeare.txt.xz"),
}
OWN = "files"  # the name of a corpus of one's own


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The text that a run learns from.

    Args:
        name: austen (shipped with the project), wordnet or shakespeare (./scripts/prepare_text gets them), or
            files: text files of your own.
        root: folder of the corpus, if it is not in its usual place; for `files` a text file in UTF-8, or a
            folder of *.txt, each of them a work with an end that is held out.

    Raises:
        ValueError: an unknown name, or `files` without a root.
    """

    name: str = "austen"
    root: str | None = None

    def __post_init__(self) -> None:
        if self.name not in (*CORPORA, OWN):
            raise ValueError(f"data.name must be one of {', '.join((*CORPORA, OWN))}, got {self.name!r}")
        if self.name == OWN and not self.root:
            raise ValueError("data.root must name a text file or a folder of *.txt where data.name is files")


def load_text(config: TextConfig, split: str) -> str:
    """Return one split of a corpus; each paragraph ends with a newline.

    Args:
        split: "train", "valid" or "test", or "all" for the three together.

    Raises:
        ValueError: split is none of these, a file is torn or not UTF-8, or the split is empty.
        FileNotFoundError: the corpus is not in its place.
        OSError: a file cannot be read.
    """
    if split not in (*SPLITS, "all"):
        raise ValueError(f"split must be one of {', '.join(SPLITS)} or all, got {split!r}")
    names = SPLITS if split == "all" else (split,)
    if config.name == OWN:
        works = [_plain(path) for path in _own_files(Path(config.root or ""))]
        parts = [parted(text)[name] for name in names for text in works]
    elif "{}" in CORPORA[config.name].file:
        parts = [_packed(config, name) for name in names]
    else:
        text = _packed(config, "")
        parts = [text] if split == "all" else [parted(text)[split]]
    text = "".join(parts)
    if not text.strip():
        raise ValueError(f"the {split} text of data.name {config.name} is empty: the corpus is too short")
    return text


def parted(text: str) -> dict[str, str]:
    """Return the three splits of one work, cut between paragraphs, which are lines; empty lines are dropped.

    A paragraph belongs to the split in which it ends, counted in characters.
    """
    paragraphs = [line for line in text.split("\n") if line.strip()]
    total = sum(map(len, paragraphs))
    parts: dict[str, list[str]] = {name: [] for name in SPLITS}
    end = 0
    for paragraph in paragraphs:
        end += len(paragraph)
        held_out = "valid" if end < (1 - TEST) * total else "test"
        parts["train" if end < (1 - TEST - VALID) * total else held_out].append(paragraph)
    return {name: "".join(f"{line}\n" for line in lines) for name, lines in parts.items()}


def unpacked(path: Path) -> str:
    """Return the text of a file in UTF-8 that is compressed with xz.

    Raises:
        OSError: it cannot be read.
        ValueError: it is torn, or another kind of file.
    """
    with naming(path):
        packed = path.read_bytes()
    try:
        text = lzma.decompress(packed).decode()
    except (lzma.LZMAError, UnicodeDecodeError, EOFError) as error:
        raise ValueError(f"{path} is not a whole text compressed with xz: {error}") from error
    return text if text.endswith("\n") else f"{text}\n"


def _packed(config: TextConfig, split: str) -> str:
    corpus = CORPORA[config.name]
    folder = Path(config.root) if config.root else located(corpus.root)
    path = folder / corpus.file.format(split)
    if not path.is_file():
        raise FileNotFoundError(
            f"the text of data.name {config.name} is not in {path.resolve()}: run ./scripts/prepare_text "
            "or name its folder with --data.root"
        )
    return unpacked(path)


def _own_files(root: Path) -> list[Path]:
    paths = sorted(root.glob("*.txt")) if root.is_dir() else [root] if root.is_file() else []
    if not paths:
        raise FileNotFoundError(f"data.root {root} is neither a text file nor a folder of *.txt")
    return paths


def _plain(path: Path) -> str:
    with naming(path):
        data = path.read_bytes()
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text in UTF-8: {error}") from None
