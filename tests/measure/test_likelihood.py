"""Bits per character and perplexity, of models whose probabilities are known."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from genserve.language.pairs import BYTES, BytePairs
from genserve.language.words import UNKNOWN, Words
from genserve.measure import likelihood
from genserve.measure.likelihood import fit_of
from genserve.models.ngram import counted
from genserve.models.text import RecurrentText, nll

TEXT = "the cat saw the dog.\nÉ the end\n" * 3


def test_a_model_that_knows_nothing_pays_the_size_of_its_vocabulary() -> None:
    network = RecurrentText(256, width=4).eval()
    nn.init.zeros_(network.embedding.weight)
    fit = fit_of(network, BytePairs(BYTES), TEXT)
    n_bytes = len(TEXT.encode())
    assert (fit.tokens, fit.characters, fit.unknown) == (n_bytes, len(TEXT), 0)
    assert fit.words == 3 * 11
    assert fit.perplexity == pytest.approx(256, rel=1e-5)
    assert fit.bits_per_character == pytest.approx(8 * n_bytes / len(TEXT), rel=1e-5)
    assert fit.word_perplexity == pytest.approx(256 ** (n_bytes / 33), rel=1e-4)


def test_a_long_text_is_read_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """In chunks it costs what it costs in one piece, and what training measures with one stream."""
    torch.manual_seed(0)
    network, tokens = RecurrentText(256, width=8).eval(), BytePairs(BYTES)
    ids = torch.tensor(tokens.encode(TEXT))
    expected = nll(network, ids, tokens.first, streams=1)
    for chunk in (1, 7, 10_000):
        monkeypatch.setattr(likelihood, "CHUNK", chunk)
        assert fit_of(network, tokens, TEXT).nats == pytest.approx(expected, rel=1e-5)


def test_unknown_words_are_counted_and_an_order_is_asked_for() -> None:
    words = Words((UNKNOWN, "\n", "the", "cat"))
    network = counted(np.array(words.encode(TEXT)), len(words), 2, words.first)
    fits = [fit_of(network, words, TEXT, order) for order in (0, 1, 2)]
    assert fits[0] == fits[2] != fits[1]
    assert fits[0].unknown == 3 * 5
    assert fits[0].tokens == 33
    assert fits[2].perplexity < fits[1].perplexity < 4
    assert fits[0].nats == pytest.approx(33 * math.log(fits[0].perplexity))


def test_what_cannot_be_measured_is_named() -> None:
    tokens = BytePairs(BYTES)
    network = RecurrentText(256, width=4).eval()
    with pytest.raises(ValueError, match="the text is empty"):
        fit_of(network, tokens, "")
    with pytest.raises(ValueError, match="order is of n-gram models"):
        fit_of(network, tokens, "a", 2)
    with pytest.raises(ValueError, match="a Linear does not predict text"):
        fit_of(nn.Linear(1, 1), tokens, "a")
