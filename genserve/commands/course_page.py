"""Run the commands of docs/course.md against a server, and write what they answer below them.

    genserve course-page --server http://127.0.0.1:8080

The server must have the archives that the page names. Pictures go to docs/images/course.
"""

import json
import re
import shutil
import subprocess
import tempfile
import textwrap
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

from genserve.cli import plain_errors
from genserve.files import write_atomic
from genserve.places import PROJECT

PAGE, PICTURES = Path("docs/course.md"), Path("docs/images/course")
ADDRESS = "http://127.0.0.1:8080"  # as the page writes it
BLOCK = re.compile(r"^```sh\n(.*?)^```\n(\n```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)
COLUMNS = 116


def renewed(page: str, server: str, pictures: Path) -> str:
    """Return the page with today's answers, and write its pictures.

    Args:
        page: its text.
        server: the address of the server that answers.
        pictures: folder for the files that the commands write.

    Raises:
        RuntimeError: a command fails.
    """

    def block(match: re.Match[str]) -> str:
        command, shown = match[1], match[2]
        text = _answer(command.replace(ADDRESS, server), pictures)
        return f"```sh\n{command}```\n" + (f"\n```text\n{text}\n```\n" if shown else "")

    return BLOCK.sub(block, page)


def _answer(command: str, pictures: Path) -> str:
    """Return what a command prints, as the page shows it; the files that it writes go to a folder."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "docs").symlink_to(PROJECT / "docs")
        quiet = command.replace("curl ", "curl -sS --fail-with-body ")
        done = subprocess.run(["bash", "-ec", quiet], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{command}{done.stdout}{done.stderr}")
        pictures.mkdir(parents=True, exist_ok=True)
        for file in Path(folder).glob("*.*"):
            shutil.copy(file, pictures / file.name)
    return shown(done.stdout)


def shown(output: str) -> str:
    """Return an answer as lines of the page: JSON with a line for each item, text wrapped."""
    try:
        answer = json.loads(output)
    except ValueError:
        lines = output.strip().splitlines()
        return "\n".join(part for line in lines for part in textwrap.wrap(line, COLUMNS) or [""])
    answer.pop("settings", None)  # the version of the weights among them
    text = json.dumps(answer)
    return "\n".join(textwrap.wrap(text, COLUMNS, break_on_hyphens=False))


def run(argv: list[str]) -> None:
    """Do what the flags ask for; a mistake ends the program in one line."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--server", default=ADDRESS, help=f"address of its predictions (default: {ADDRESS})")
    server = parser.parse_args(argv).server
    with plain_errors():
        path = PROJECT / PAGE
        text = renewed(path.read_text(), server, PROJECT / PICTURES)
        write_atomic(path, text.encode())
    print(PAGE)
