"""For how long a stop waits, and which processes count as alive."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from program import background
from real_server import ROOT, wait_until

from genserve.operate.process import alive, born, limited, locked, record, running
from genserve.operate.stopping import deadline


def test_a_stop_waits_for_the_longest_deadline_of_the_archives(tmp_path: Path) -> None:
    assert deadline(tmp_path) == 0
    shipped = []
    for mode in ("continuous", "batched"):
        text = (ROOT / "handlers" / f"{mode}.yaml").read_text()
        shipped.append(yaml.safe_load(text)["handler"]["deadline"])
        (tmp_path / "models" / mode).mkdir(parents=True)
        (tmp_path / "models" / mode / "model-config.yaml").write_text(text)
    assert deadline(tmp_path) == max(shipped)
    other = tmp_path / "models" / "other"
    other.mkdir()
    (other / "c.yaml").write_text("deadline: 9999\nhandler:\n    deadline: 7000.5\n    my_deadline: 9999\n")
    assert deadline(tmp_path) == 7000.5


def test_a_process_is_alive_until_it_has_ended_also_if_its_parent_never_looks() -> None:
    code = "import subprocess, time; c = subprocess.Popen(['true']); print(c.pid, flush=True); time.sleep(60)"
    with background([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        wait_until(lambda: alive(child), False, 5)
        os.kill(child, 0)  # it still has its number
        assert alive(parent.pid)
        os.kill(parent.pid, signal.SIGKILL)
        wait_until(lambda: alive(parent.pid), False, 5)


def test_a_home_has_the_server_that_was_started_and_no_other(tmp_path: Path) -> None:
    assert running(tmp_path) is None
    server = {"pid": os.getpid(), "born": born(os.getpid())}
    record(tmp_path, server)
    assert running(tmp_path) == server
    record(tmp_path, server | {"born": "long ago"})
    assert running(tmp_path) is None
    for text in ("", "[]", "{}", '{"pid": "x", "born": 1}'):
        (tmp_path / "server.json").write_text(text)
        assert running(tmp_path) is None


def test_a_wait_for_a_lock_ends_in_time(tmp_path: Path) -> None:
    code = "import sys, time; from pathlib import Path; from genserve.operate.process import locked\n"
    code += "with locked(Path(sys.argv[1])): print('locked', flush=True); time.sleep(60)"
    with background([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "locked\n"
        began = time.monotonic()
        with pytest.raises(TimeoutError, match=r"no answer within 0\.2 s"), limited(0.2), locked(tmp_path):
            pass
        assert time.monotonic() - began < 5
    with limited(0.1):
        pass
    time.sleep(0.2)  # nothing comes later
