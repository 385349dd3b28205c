"""Types of progress bars: the library has none, and a program passes its own."""

from collections.abc import Callable, Iterable

Chunks = Callable[[Iterable[int]], Iterable[int]]  # returns the same starts of chunks; tqdm shows a bar
Progress = Callable[[str], Chunks]  # takes the name of the work
