"""What programs share: flags from a config class, and errors that a user can mend in one line."""

import logging
import os
import sys
from argparse import HelpFormatter, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Config = TypeVar("Config")


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


def flags(argv: list[str]) -> list[str]:
    """Return the command line with underscores for the dashes inside flag names: --a-b is --a_b."""
    words = [word.partition("=") if word.startswith("--") else ("", "", word) for word in argv]
    return [name.replace("-", "_").replace("__", "--", 1) + equals + value for name, equals, value in words]


def help_formatter() -> type[HelpFormatter]:
    """Return what shows a program's docstring as it is written, and defaults behind the flags."""
    from jsonargparse import DefaultHelpFormatter

    class Help(DefaultHelpFormatter, RawDescriptionHelpFormatter):
        pass

    return Help


def configure(
    program: Callable[[Config], None], kind: type[Config], description: str, argv: list[str]
) -> None:
    """Read a config from YAML (`--config FILE`) and flags, then run the program with it.

    Every field of the dataclass is a flag, nested ones with a dot, dashes or underscores alike; an unknown
    key is an error. A failure the user can mend ends in one line, not in a traceback.
    """
    from jsonargparse import ArgumentParser

    level = logging.INFO if int(os.environ.get("RANK", "0")) == 0 else logging.ERROR  # the others are quiet
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parser = ArgumentParser(description=description, exit_on_error=True)
    parser.add_argument("--config", action="config", help="YAML file with any of the keys below")
    parser.add_class_arguments(kind, nested_key=None)
    parsed = parser.parse_args(flags(argv))
    parsed.pop("config")
    with plain_errors():
        program(kind(**vars(parser.instantiate(parsed))))
