"""Measure how well a language model predicts a text: bits per character, perplexity."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genserve.language.tokens import Tokens
from genserve.language.words import PIECES
from genserve.models.ngram import NGramText
from genserve.models.text import RecurrentText

CHUNK = 256  # tokens that a recurrent network reads in one evaluation


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How well a model predicts a text."""

    nats: float  # negative log-likelihood of all its tokens
    tokens: int
    unknown: int  # of them, words that the vocabulary lacks: counted as one event, their spelling is not paid
    characters: int  # of the text as it is, blanks and ends of lines included
    words: int  # words, numbers and runs of marks (genserve.language.words)

    @property
    def perplexity(self) -> float:
        """Per token."""
        return math.exp(self.nats / self.tokens)

    @property
    def word_perplexity(self) -> float:
        """Per word, number or run of marks, however many tokens it has."""
        return math.exp(self.nats / self.words)

    @property
    def bits_per_character(self) -> float:
        """Of the text as it is; too low a number if a token may be unknown or loses blanks."""
        return self.nats / math.log(2) / self.characters


def fit_of(network: nn.Module, tokens: Tokens, text: str, order: int = 0) -> Fit:
    """Return how well a model predicts a text, read in one go.

    Args:
        network: of family text.
        order: of an n-gram model, 0 for its own.

    Raises:
        ValueError: the text is empty, the order is none that the model has, or the network is another.
    """
    ids = tokens.encode(text)
    if not ids:
        raise ValueError("the text is empty: there is nothing to predict")
    log_p = log_probabilities(network, torch.tensor(ids), tokens.first, order)
    return Fit(
        nats=-log_p.double().sum().item(),
        tokens=len(ids),
        unknown=sum(token in tokens.hidden for token in ids),
        characters=len(text),
        words=len(PIECES.findall(text)),
    )


@torch.no_grad()
def log_probabilities(network: nn.Module, ids: Tensor, first: int, order: int = 0) -> Tensor:
    """Return the logarithm of the probability of each token (N,), given those before it; as `fit_of`."""
    row = torch.cat([ids.new_tensor([first]), ids])[None]
    if isinstance(network, NGramText):
        return network.score(row, network.start(1, order)).log_p[0]
    if not isinstance(network, RecurrentText):
        raise ValueError(f"a {type(network).__name__} does not predict text")
    if order:
        raise ValueError(f"order is of n-gram models; this one is recurrent, got {order}")
    state, parts = network.start(1), []
    for k in range(0, len(ids), CHUNK):
        logits, state = network(row[:, k : min(k + CHUNK, len(ids))], state)
        targets = row[:, k + 1 : k + 1 + logits.shape[1]]
        parts.append(-F.cross_entropy(logits[0], targets[0], reduction="none"))
    return torch.cat(parts)
