"""End a text where it would begin one of some strings, and show no part of that string before."""

from collections.abc import Sequence


class Stops:
    """Passes text on until a stop string is in it.

    Args:
        strings: the stop strings, none of them empty. The one that is complete first ends the text; of those
            that are complete at the same place, the longest.

    Raises:
        ValueError: a string is empty.
    """

    def __init__(self, strings: Sequence[str] = ()) -> None:
        if "" in strings:
            raise ValueError("a stop string must not be empty")
        self.strings = tuple(strings)
        self.stopped = ""  # the string that ended the text
        self._held = ""  # the end of the text, if it may be the beginning of a stop string

    def add(self, text: str) -> str:
        """Return what of the text so far may be shown now; nothing more follows once `stopped` is set."""
        if self.stopped:
            return ""
        text = self._held + text
        for end in range(len(self._held) + 1, len(text) + 1):
            ended = [string for string in self.strings if text[:end].endswith(string)]
            if ended:
                self.stopped, self._held = max(ended, key=len), ""
                return text[: end - len(self.stopped)]
        shown = len(text) - self._open(text)
        self._held = text[shown:]
        return text[:shown]

    def close(self) -> str:
        """Return what was held back, now that nothing follows."""
        held, self._held = self._held, ""
        return held

    def _open(self, text: str) -> int:
        """Return the length of the longest end of a text that begins a stop string."""
        longest = min(len(text), max(map(len, self.strings), default=1) - 1)
        ends = range(longest, 0, -1)
        return next((n for n in ends if any(string.startswith(text[-n:]) for string in self.strings)), 0)
