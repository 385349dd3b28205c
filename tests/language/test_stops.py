"""Stop strings, wherever the pieces of a text are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genserve.language.stops import Stops

letters = st.text("ab", max_size=12)


def shown(stops: Stops, pieces: list[str]) -> str:
    parts = [stops.add(piece) for piece in pieces]
    return "".join(parts) + stops.close()


@given(
    text=letters,
    cuts=st.lists(st.integers(0, 12), max_size=5),
    strings=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
)
def test_a_text_ends_before_the_string_that_is_complete_first(
    text: str, cuts: list[int], strings: list[str]
) -> None:
    at = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(at)]
    ends = [(text.find(string) + len(string), -len(string)) for string in strings if string in text]
    stops = Stops(strings)
    result = shown(stops, pieces)
    if ends:
        end, length = min(ends)
        assert result == text[: end + length]
        assert stops.stopped == text[end + length : end]
    else:
        assert (result, stops.stopped) == (text, "")


def test_only_what_may_begin_a_stop_string_is_held_back() -> None:
    stops = Stops(["END"])
    assert [stops.add(piece) for piece in ("all E", "N", "ough E", "ND and more", "x")] == [
        "all ", "", "ENough ", "", "",
    ]  # fmt: skip
    assert stops.stopped == "END"
    assert stops.close() == ""
    assert Stops().add("anything") == "anything"


def test_an_empty_string_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        Stops(["a", ""])
