"""Text that is written: by a model that is known exactly."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from genserve.language.pairs import BYTES, BytePairs, learn
from genserve.language.queries import Prediction
from genserve.language.rules import Rules
from genserve.language.sampler import Text, Written, drive, write
from genserve.language.tokens import Tokens
from genserve.language.words import UNKNOWN, Words
from genserve.sampling.noise import uniforms

PAIRS = BytePairs(learn("one two three one two three\n" * 3, 300))
GREEDY = Rules(temperature=0)
START = torch.zeros(1, 1)


class Parrot:
    """Says a text from its beginning, one token per step, and keeps what it was sent."""

    def __init__(self, tokens: Tokens, text: str, prompt: int = 0) -> None:
        self.ids, self.n = tokens.encode(text), len(tokens)
        self.prompt, self.sent = prompt, list[int]()

    def __call__(self, token: Tensor, state: Tensor) -> Prediction:
        assert token.shape == (1,)
        assert state.item() == len(self.sent)  # what was answered last
        self.sent.append(int(token))
        logits = torch.zeros(1, self.n)
        at = len(self.sent) - 1 - self.prompt
        if 0 <= at < len(self.ids):
            logits[0, self.ids[at]] = 10
        return Prediction(logits, state + 1)


def parroted(text: str, prompt: str = "", tokens: Tokens = PAIRS, **more: object) -> tuple[Text, Parrot]:
    n = len(tokens.encode(prompt.rstrip(" ")))
    parrot = Parrot(tokens, text, n)
    settings = {"length": len(parrot.ids), "rules": GREEDY, "uniforms": itertools.repeat(0.5)} | more
    return drive(write(tokens, START, prompt, **settings), parrot), parrot  # type: ignore[arg-type]


def test_a_text_is_what_the_model_says_and_every_token_goes_back_to_it() -> None:
    text, parrot = parroted(" two three", prompt="one")
    assert text.text == " two three"
    assert text.ids == tuple(parrot.ids)
    assert parrot.sent == [PAIRS.first, *PAIRS.encode("one"), *parrot.ids[:-1]]
    own = 10 - np.log(np.exp(10) + len(PAIRS) - 1)
    assert text.log_p == pytest.approx([own] * len(parrot.ids))
    assert text.stopped == ""


@pytest.mark.parametrize("tokens", [PAIRS, Words((UNKNOWN, "\n", "one", "two", "."))])
def test_behind_a_blank_comes_a_word_without_another_blank(tokens: Tokens) -> None:
    liked = " two" if tokens is PAIRS else "two"
    assert parroted(liked, prompt="one ", tokens=tokens)[0].text == "two"
    assert parroted(liked, prompt="one", tokens=tokens)[0].text == " two"
    # what has no blank before it must not follow one, whatever the model would like most
    text, _ = parroted(".", prompt="one ", tokens=tokens, length=1)
    assert text.text != "."
    assert tokens.blanks("one ")[text.ids[0]]


def test_a_stop_string_ends_the_text_before_it_even_inside_a_token() -> None:
    noted: list[Written] = []
    text, parrot = parroted("one two three", stop=["wo t"], see=noted.append)
    assert (text.text, text.stopped) == ("one t", "wo t")
    assert "".join(written.text for written in noted) == text.text
    assert len(text.ids) == len(noted) < len(parrot.ids) + 1
    assert tuple(written.token for written in noted) == text.ids


def test_what_was_held_back_for_a_stop_string_comes_with_the_last_token() -> None:
    text, _ = parroted("one two", stop=["two three"])
    assert (text.text, text.stopped) == ("one two", "")


def test_half_a_character_at_the_end_becomes_a_mark() -> None:
    tokens = BytePairs(BYTES)
    text, _ = parroted("é", tokens=tokens, length=1)
    assert text.text == "\ufffd"


def test_unknown_words_are_never_drawn() -> None:
    words = Words((UNKNOWN, "\n", "a"))

    def unknown(token: Tensor, state: Tensor) -> Prediction:
        return Prediction(torch.tensor([[50.0, 0.0, 0.0]]), state)

    stream: Iterator[float] = uniforms(0, 0)
    text = drive(write(words, START, "", length=50, rules=Rules(), uniforms=stream), unknown)
    assert set(text.ids) == {1, 2}
    assert text.log_p == pytest.approx([-50] * 50, abs=1e-3)  # by the model itself, which hides nothing


def test_a_token_is_chosen_by_its_own_number_of_the_stream() -> None:
    """A longer text keeps the beginning of a shorter one, and draws have the model's frequencies."""

    def coin(token: Tensor, state: Tensor) -> Prediction:
        logits = torch.full((1, 256), -torch.inf)
        logits[0, ord("a")], logits[0, ord("b")] = np.log(0.25), np.log(0.75)
        return Prediction(logits, state)

    def drawn(n: int, index: int = 0) -> str:
        rules = Rules()
        return drive(
            write(BytePairs(BYTES), START, "", length=n, rules=rules, uniforms=uniforms(3, index)), coin
        ).text

    long = drawn(2000)
    assert long.startswith(drawn(20))
    assert long != drawn(2000, index=1)
    assert long.count("b") / 2000 == pytest.approx(0.75, abs=4 * 0.43 / 2000**0.5)


def test_settings_that_make_no_sense_are_named_at_the_first_step() -> None:
    for more, message in (
        ({"length": 0}, "length must be at least 1"),
        ({"stop": [""]}, "must not be empty"),
    ):
        with pytest.raises(ValueError, match=message):
            parroted("one", **more)
