"""Small language models, a recurrent one and counts of words, exported as an archive has them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from genserve.files import write_json
from genserve.language.pairs import BytePairs
from genserve.language.pairs import learn as learn_pairs
from genserve.language.tokens import Tokens, write_tokens
from genserve.language.words import Words
from genserve.language.words import learn as learn_words
from genserve.models.ngram import counted
from genserve.models.text import RecurrentText
from genserve.runs.directory import FORMAT
from genserve.runs.export import export
from genserve.runs.tensors import write_weights

TEXT = (
    "The cat sat on the mat.\nThe dog sat on the cat, and the cat ran.\nA dog ran; the mat lay there.\n" * 3
)


def recurrent(folder: Path) -> tuple[Path, RecurrentText, Tokens]:
    """Write and export an untrained network; return the exported folder, the network and its tokens."""
    torch.manual_seed(0)
    tokens = BytePairs(learn_pairs(TEXT, 270))
    network = RecurrentText(len(tokens), width=16, layers=2).eval()
    for weight in network.parameters():
        weight.data *= 3  # so that texts differ
    net = {"width": 16, "layers": 2}
    return _exported(folder / "small", "recurrent", tokens, net, network), network, tokens


def ngram(folder: Path, order: int = 3) -> tuple[Path, Any, Tokens]:
    """Count and export an n-gram model; returns as `recurrent`."""
    tokens = Words(learn_words(TEXT, 1))
    network = counted(np.array(tokens.encode(TEXT)), len(tokens), order, tokens.first)
    return _exported(folder / "counts", "ngram", tokens, network.sizes(), network), network, tokens


def _exported(run: Path, network: str, tokens: Tokens, net: dict[str, Any], module: torch.nn.Module) -> Path:
    run.mkdir()
    model = {"family": "text", "network": network, "n_tokens": len(tokens), "net": net}
    write_json(run / "config.json", {"format": FORMAT, "model": model})
    write_tokens(run, tokens)
    write_weights(run / "weights.safetensors", module.state_dict())
    export(run, run / "exported")
    return run / "exported"
