"""What every program does with an error that its user can mend."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def plain_errors() -> Iterator[None]:
    """End the program in one line when something fails that its user can mend: values, files, disks."""
    try:
        yield
    except (ValueError, FloatingPointError, OSError) as error:
        _close_bars()
        if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
            sys.exit(f"error: {error.filename}: {error.strerror}")
        sys.exit(f"error: {error}")


def _close_bars() -> None:
    """End the lines that progress bars stand on, so that an error has a line of its own."""
    if "tqdm" in sys.modules:
        from tqdm import tqdm

        for bar in list(tqdm._instances):
            bar.close()
