"""Count what follows what in a text: a corpus in, a run directory of an n-gram model out, in a few seconds.

    python training/train_ngram.py --config training/configs/ngram-austen.yaml
    python training/train_ngram.py --data.name files --data.root DIR --name mine    # text files of your own

The tokens are words. There is nothing to resume: run it again and it counts again.
"""

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from genserve import files
from genserve.cli import configure
from genserve.data.text import TextConfig, load_text
from genserve.drawing.texts import samples
from genserve.language.tokens import write_tokens
from genserve.language.words import Words, learn
from genserve.learning.checkpoint import held
from genserve.learning.identity import as_stored, changes, described
from genserve.measure.likelihood import fit_of
from genserve.models.ngram import counted
from genserve.models.text import TextModel
from genserve.runs.directory import FORMAT, read_config
from genserve.runs.tensors import as_safetensors


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One run; saved in config.json beside the counts.

    Args:
        name: the run is written to OUTPUT/NAME.
        output: where run directories are.
        data: the text.
        order: most words in a row that are counted; the model can be asked at every order up to it.
        min_count: a word seen less often is unknown.
    """

    name: str = "ngram"
    output: str = "runs"
    data: TextConfig = field(default_factory=TextConfig)
    order: int = 3
    min_count: int = 2

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("name must not be empty: the run is written to OUTPUT/NAME")
        if not 1 <= self.order <= 4:
            raise ValueError(f"order must be 1 to 4, got {self.order}")
        if self.min_count < 1:
            raise ValueError(f"min_count must be at least 1, got {self.min_count}")


def main(config: TrainConfig) -> None:
    """Count, measure on the validation text, and write the run.

    Raises:
        ValueError: the directory holds another run, or the text is too short.
        OSError: a file cannot be read or written.
    """
    directory = Path(config.output) / config.name
    with held(directory):
        text, valid = (load_text(config.data, split) for split in ("train", "valid"))
        words = Words(learn(text, config.min_count))
        network = counted(np.array(words.encode(text)), len(words), config.order, words.first).eval()
        model = TextModel(family="text", network="ngram", n_tokens=len(words), net=network.sizes())
        settings = as_stored(
            {
                "format": FORMAT,
                "model": asdict(model),
                "train": asdict(config),
                "data": described(text),
                "held_out": described(valid),
                "inputs": {},
            }
        )
        refuse_another(directory, settings)
        directory.mkdir(parents=True, exist_ok=True)
        files.update(directory / "config.json", files.as_json(settings))
        write_tokens(directory, words)
        files.update(directory / "weights.safetensors", as_safetensors(network.state_dict()))
        record: dict[str, float] = {"step": 1}
        for order in range(1, config.order + 1):
            perplexity = fit_of(network, words, valid, order).perplexity
            record[f"valid_perplexity_{order}"] = round(perplexity, 3)
        files.update(directory / "metrics.jsonl", (json.dumps(record) + "\n").encode())
        files.update(directory / "samples.txt", samples(network.step, network.start(1), words).encode())
    print(f"{directory}: {len(words)} words, {len(network.tokens)} counts, perplexity {perplexity:.1f}")


def refuse_another(directory: Path, settings: dict[str, Any]) -> None:
    """Refuse a directory that holds a run with other settings or another text.

    Raises:
        ValueError: it does.
    """
    if not (directory / "config.json").exists():
        if (directory / "weights.safetensors").exists():
            raise ValueError(f"{directory} holds weights without a config.json: give another --name")
        return
    before = read_config(directory) | {"model": settings["model"]}  # what differs there follows from the rest
    if changed := changes(before, settings, {}):
        raise ValueError(
            f"{directory} holds another run ({'; '.join(changed)}): give another --name or remove it"
        )


if __name__ == "__main__":
    configure(main, TrainConfig, __doc__.split("\n\n")[0], sys.argv[1:])
