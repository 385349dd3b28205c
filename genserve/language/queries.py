"""What a language model is sent and what it answers; the first dimension of every tensor is the text."""

from typing import NamedTuple

from torch import Tensor


class Step(NamedTuple):
    """The next token of each text."""

    token: Tensor  # (B,) int64
    state: Tensor  # (B, ...), of the text before it


class Prediction(NamedTuple):
    """What a language model answers to a step."""

    logits: Tensor  # (B, n_tokens), of the token after this one
    state: Tensor  # (B, ...), to be sent with that token


class Stretch(NamedTuple):
    """Tokens that are given, and whose probabilities are asked for."""

    tokens: Tensor  # (B, T + 1) int64
    state: Tensor  # (B, ...), of the text before the first one


class Likelihood(NamedTuple):
    """What a language model answers to a stretch."""

    log_p: Tensor  # (B, T), natural logarithms: of each token but the first, given those before it
    state: Tensor  # (B, ...), to be sent with the last token
