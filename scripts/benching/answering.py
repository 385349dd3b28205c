"""Talk with a program of this folder or of the peers that answers each line with a line of JSON."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from subprocess import PIPE
from typing import Any

from clients import PYTHON, environment

Ask = Callable[[str | None], Any]  # takes a line, or None if the program speaks first


@contextlib.contextmanager
def answering(*command: object) -> Iterator[Ask]:
    """Run a Python program and yield what asks it; the program ends with its input, when the block ends."""
    words = [str(word) for word in (PYTHON, *command)]
    with subprocess.Popen(words, stdin=PIPE, stdout=PIPE, env=environment(), text=True) as process:
        questions, answers = process.stdin, process.stdout
        assert questions is not None
        assert answers is not None

        def ask(line: str | None) -> Any:
            if line is not None:
                with contextlib.suppress(BrokenPipeError):  # its last line is missing then, too
                    questions.write(f"{line}\n")
                    questions.flush()
            answer = answers.readline()
            if not answer:
                sys.exit(f"{' '.join(words)} ended without an answer")
            return json.loads(answer)

        try:
            yield ask
        finally:
            with contextlib.suppress(BrokenPipeError):  # a line that it did not read
                questions.close()
