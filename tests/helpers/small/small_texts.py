"""The training programs of text on a corpus of a few lines, run in this process."""

import runpy
from pathlib import Path
from typing import Any

from genserve.data.text import TextConfig

ROOT = Path(__file__).parents[3]
PROGRAMS = {name: runpy.run_path(str(ROOT / f"training/{name}.py")) for name in ("train_text", "train_ngram")}
SMALL: dict[str, dict[str, Any]] = {
    "train_text": {
        "n_tokens": 270,
        "epochs": 2,
        "batch_size": 4,
        "window": 16,
        "warmup": 2,
        "precision": "fp32",
        "device": "cpu",
        "checkpoint_every": 5,
    },
    "train_ngram": {"order": 3},
}


def write_corpus(folder: Path, lines: int = 120) -> Path:
    """Write a text of its own kind, and return its file."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ("the", "cat", "saw", "a", "dog", "and", "ran")
    text = "".join(" ".join(words[(k * j) % 7] for j in range(1, 8)) + ".\n" for k in range(1, lines + 1))
    (folder / "corpus.txt").write_text(text)
    return folder / "corpus.txt"


def config_of(name: str, output: Path, corpus: Path, **more: Any) -> Any:
    """Return the configuration of a program that learns from a file."""
    settings = SMALL[name] | {"name": name, "output": str(output)} | more
    if name == "train_text":
        settings["net"] = PROGRAMS[name]["NetConfig"](**settings.get("net", {"width": 8, "layers": 2}))
    return PROGRAMS[name]["TrainConfig"](data=TextConfig(name="files", root=str(corpus)), **settings)


def fit(name: str, output: Path, corpus: Path, **more: Any) -> Path:
    """Run a program; return its run directory."""
    PROGRAMS[name]["main"](config_of(name, output, corpus, **more))
    return output / name
