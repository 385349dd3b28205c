"""Read flags into a config class, and end in one line what a user can mend."""

import logging
import os
import re
import shlex
import sys
from argparse import HelpFormatter, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from genserve.places import located

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


def typed_command() -> str:
    """Return the command line of this process, as its user would type it again."""
    program, *words = sys.argv
    front = program if program.startswith("genserve ") else shlex.join(["python", program])
    return f"{front} {shlex.join(words)}".rstrip()


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


def config_of(
    kind: type[Config],
    description: str | None,
    argv: list[str],
    *,
    lists: Mapping[str, tuple[type, str]] | None = None,
    switches: Mapping[str, str] | None = None,
    positional: tuple[str, list[str], str] | None = None,
) -> Config:
    """Return the config that flags and a YAML file (`--config FILE`) ask for.

    Every field of the dataclass is a flag, dashes and underscores alike; an unknown key is an error.

    Args:
        kind: the dataclass, whose docstring has the help of its fields.
        description: of the program.
        argv: the command line, without the program's name.
        lists: fields of several values, with their type and help: `--steps 4 8` or `--steps '[4,8]'`.
        switches: fields that are true when their flag is there, with their help.
        positional: a field of several words without a flag, with its choices and help.

    Raises:
        ValueError: as the dataclass, or a word of a list is not of its type.
        SystemExit: as argparse.
    """
    from jsonargparse import ArgumentParser

    lists, switches = lists or {}, switches or {}
    parser = ArgumentParser(description=description, formatter_class=help_formatter())
    parser.add_argument("--config", action="config", help="YAML file with any of the keys below")
    own = {*lists, *switches, *(positional or ())[:1]}
    parser.add_class_arguments(kind, nested_key=None, skip=own)
    if positional:
        parser.add_argument(positional[0], nargs="+", choices=positional[1], help=positional[2])
    for name, (_, help_text) in lists.items():
        default = [str(value) for value in getattr(kind, name)]
        parser.add_argument(f"--{name}", nargs="+", default=default, help=help_text)
    for name, help_text in switches.items():
        parser.add_argument(f"--{name}", action="store_true", help=help_text)
    values: dict[str, Any] = vars(parser.parse_args(_readable(flags(argv))))
    values.pop("config")
    for name, (item, _) in lists.items():
        values[name] = tuple(_items(name, item, values[name]))
    return kind(**values)


def _items(name: str, kind: type, words: list[Any]) -> list[Any]:
    """Return the values of a list's words; one word may hold several, as in `[4,8]`."""
    items = []
    for word in words:
        inner = re.fullmatch(r"\[(.*)\]", str(word))
        for text in inner[1].split(",") if inner else [str(word)]:
            try:
                items.append(kind(text.strip(" '\"") if inner else text))
            except ValueError:
                raise ValueError(f"{name} must be {kind.__name__} values, got {text!r}") from None
    return items


def _readable(argv: list[str]) -> list[str]:
    """Return the command line with each `--config` as a place below the working directory or the project."""
    words = list(argv)
    for k, word in enumerate(argv):
        if word.startswith("--config="):
            words[k] = f"--config={located(word.removeprefix('--config='))}"
        elif word == "--config" and k + 1 < len(argv):
            words[k + 1] = str(located(argv[k + 1]))
    return words


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
    parsed = parser.parse_args(_readable(flags(argv)))
    parsed.pop("config")
    with plain_errors():
        program(kind(**vars(parser.instantiate(parsed))))
