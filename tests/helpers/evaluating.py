"""Run an evaluation in this process."""

import json
import shlex
from pathlib import Path
from typing import Any

from genserve.commands import evaluate as PROGRAM


def evaluate(*flags: str | Path) -> list[dict[str, Any]]:
    """Run the program and return the rows that it wrote."""
    return evaluated(*flags)["rows"]


def evaluated(*flags: str | Path) -> dict[str, Any]:
    """Run the program and return the whole of what it wrote."""
    words = [*map(str, flags), "--device", "cpu"]
    config = PROGRAM.command_line(words)
    PROGRAM.main(config, shlex.join(words))
    return json.loads(config.output.read_text())
