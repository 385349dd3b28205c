"""What shows progress, as types: a library knows no progress bar, and a program brings one."""

from collections.abc import Callable, Iterable

Chunks = Callable[[Iterable[int]], Iterable[int]]  # returns the same starts of chunks; tqdm shows a bar
Progress = Callable[[str], Chunks]  # takes what is being done
