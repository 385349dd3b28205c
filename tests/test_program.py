"""Programs that tests start end with the test, whatever happens, and so do their own children."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from program import background, end_all, start

PARENT = """
import subprocess, time
subprocess.Popen(["sleep", "60"])
print("started", flush=True)
time.sleep(60)
"""


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return a process that runs PARENT, and its child."""
    assert process.stdout
    assert process.stdout.readline() == "started\n"
    parent = psutil.Process(process.pid)
    members = [parent, *parent.children()]
    assert len(members) == 2
    return members


def test_a_block_that_fails_ends_its_program() -> None:
    members: list[psutil.Process] = []

    def fail() -> None:
        with background([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as process:
            members.extend(family(process))
            raise RuntimeError("in the block")

    with pytest.raises(RuntimeError, match="in the block"):
        fail()
    assert len(members) == 2
    assert psutil.wait_procs(members, timeout=5)[1] == []


def test_a_program_that_a_test_leaves_is_ended(tmp_path: Path) -> None:
    program = tmp_path / "parent.py"
    program.write_text(PARENT)
    members = family(start(program, {}, tmp_path, "left"))
    end_all()
    assert psutil.wait_procs(members, timeout=5)[1] == []
