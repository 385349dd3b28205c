"""What is wrong in a store, or on the disk, costs the other archives nothing and is named."""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import archives
import httpx
import pytest
from program import background
from real_server import ROOT, Server, wait_until

pytestmark = pytest.mark.server
CRASHES = 'raise RuntimeError("no weights of this kind")\n'


def test_bad_archives_are_named_and_the_good_one_is_served(fresh: Server) -> None:
    good = (fresh.store / "small.mar").read_bytes()
    spoiled = bytearray(good)
    spoiled[len(good) // 2] ^= 255
    (fresh.store / "spoiled.mar").write_bytes(spoiled)
    (fresh.store / "torn.mar").write_bytes(good[: len(good) // 2])
    (fresh.store / "stranger.mar").write_text("a letter")
    archives.with_handler(fresh.store, "crashes", CRASHES)
    done = fresh.serve("start")
    assert done.returncode == 3, done.stdout + done.stderr
    for file in ("spoiled", "torn", "stranger"):
        assert f"{file}.mar is left out: it is torn or no archive" in done.stderr
    assert "crashes is not ready: its worker ended 2 times before it had loaded" in done.stderr
    assert "RuntimeError: no weights of this kind" in done.stderr
    assert f"on http://127.0.0.1:{fresh.port}: small" in done.stderr
    with fresh.client() as client:
        assert client.post("/predictions/small", json={"steps": 1}).status_code == 200
        began = time.monotonic()
        assert client.post("/predictions/crashes").status_code == 503  # it would hang
        assert time.monotonic() - began < 2
    status = fresh.serve("status")
    assert "torn.mar is left out" in status.stdout
    assert "/predictions/crashes  workers: none" in status.stdout
    assert "/predictions/small  workers: READY  open: 0" in status.stdout
    assert fresh.health().returncode == 0
    again = fresh.serve("start")
    assert again.returncode == 3
    assert "already running" in again.stdout
    assert "crashes is not ready: it has no worker" in again.stderr


def test_a_store_without_one_good_archive_starts_nothing(fresh: Server) -> None:
    (fresh.store / "small.mar").write_bytes(b"PK")
    done = fresh.serve("start")
    assert done.returncode == 1
    assert "can be served:\nsmall.mar: it is torn" in done.stderr
    assert fresh.processes() == []


def test_a_start_can_be_stopped_and_looked_at(fresh: Server) -> None:
    archives.with_handler(fresh.store, "waits", archives.NEVER_LOADS)
    with background(
        fresh.command("start"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as start:
        wait_until(lambda: fresh.serve("status").returncode, 0)
        began = time.monotonic()
        assert "/predictions/waits  workers: UNLOADING" in fresh.serve("status").stdout
        assert "org.pytorch.serve" in fresh.serve("logs").stdout
        assert "waits: 0 of 1 workers are ready" in fresh.health().stderr or "small" in fresh.health().stderr
        assert fresh.serve("stop").stdout == "stopped\n"
        assert time.monotonic() - began < 60  # and not the three minutes that the start goes on for
        _, errors = start.communicate(timeout=10)
    assert (start.returncode, errors) == (1, "the server was stopped while it started\n")
    assert fresh.processes() == []
    assert not (fresh.home / "tmp").exists()


def test_a_disk_that_is_too_full_is_one_line(fresh: Server) -> None:
    limit = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))"
    run = f"{limit}; sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", run, *fresh.command("start")[1:]]
    # without the measurement of coverage, whose file would be too large as well
    measured_no_more = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=measured_no_more)
    assert done.returncode == 1
    assert done.stderr == f"{fresh.home / 'tmp' / 'trial'}: File too large\n"
    assert fresh.processes() == []


def test_management_on_a_unix_socket_serves_every_command(fresh: Server) -> None:
    done = fresh.serve("start", None, "--management", "unix")
    assert done.returncode == 0, done.stderr
    socket = json.loads((fresh.home / "server.json").read_text())["management"]
    with httpx.Client(transport=httpx.HTTPTransport(uds=socket)) as client:
        assert client.get("http://localhost/models").json()["models"][0]["modelName"] == "small"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{fresh.management}/models")
    assert fresh.health().returncode == 0
    assert "small  workers: READY  open: 0" in fresh.serve("status").stdout
    assert fresh.serve("stop").stdout == "stopped\n"


def test_java_may_open_no_more_files_than_its_memory_has_room_for(fresh: Server) -> None:
    assert fresh.serve("start").returncode == 0
    pid = json.loads((fresh.home / "server.json").read_text())["pid"]
    line = next(line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if "open files" in line)
    assert int(line.split()[3]) == min(3072, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def test_what_was_rolled_and_rolled_back_is_the_default_after_a_restart(fresh: Server) -> None:
    def models(*words: str) -> None:
        where = ["--port", str(fresh.port), "--home", str(fresh.home)]
        command = [sys.executable, str(ROOT / "scripts/models"), *words, *where]
        subprocess.run(command, check=True, capture_output=True, timeout=200)

    def served() -> str:
        with fresh.client() as client:
            answer = client.post("/predictions/small", json={"steps": 1})
        return str(answer.headers["X-Model-Version"])

    assert fresh.serve("start").returncode == 0
    archives.versioned(fresh.store / "small.mar", fresh.store / "small-2.0.mar", "2.0", "small")
    models("roll", "small", "small-2.0.mar", "--keep")
    assert served() == "2.0"
    assert fresh.serve("start").stdout.startswith("already running")  # the new archive is loaded
    models("rollback", "small")
    assert fresh.serve("stop").returncode == 0
    done = fresh.serve("start")
    assert done.returncode == 0, done.stderr
    assert "small: 1.0 is the default, as it was chosen last; 2.0 is served beside it" in done.stdout
    assert served() == "1.0"
