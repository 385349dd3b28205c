"""A gateway in the background: its address is printed when it answers, and it ends when it is stopped."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from real_server import ROOT, free_ports

from genserve.operate import process

pytestmark = pytest.mark.server  # its start wants a processor


def gateway(*words: object) -> subprocess.CompletedProcess[str]:
    """Run `genserve gateway`."""
    command = [sys.executable, "-m", "genserve", "gateway", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280)


def test_it_is_started_once_and_stopped(tmp_path: Path) -> None:
    port = free_ports(2)
    folders = ["--home", tmp_path, "--runs", tmp_path, "--outputs", tmp_path]
    flags = ["--port", port, "--server-port", port + 1, *folders]
    page = f"http://127.0.0.1:{port}/page/"
    assert "not running" in gateway("stop", *flags).stdout
    try:
        started = gateway("start", *flags)
        assert started.stdout.strip().endswith(page), started.stderr
        assert httpx.get(page, timeout=30).status_code == 200
        assert gateway("start", *flags).stdout == f"already running: {page}\n"
        other = gateway("start", "--port", port, "--home", tmp_path / "other")
        assert (other.returncode, f"port {port} is in use" in other.stderr) == (1, True)
        second = gateway(*flags)  # in the foreground
        assert second.returncode == 1
        assert f"port {port} is in use: the gateway of {page} holds it" in second.stderr
        pid = json.loads((tmp_path / "gateway.json").read_text())["pid"]
    finally:
        stopped = gateway("stop", *flags)
    assert stopped.stdout == "stopped\n"
    assert not process.alive(pid)


def test_the_end_of_one_that_cannot_run_is_said(tmp_path: Path) -> None:
    port = free_ports(1)
    failed = gateway("start", "--port", port, "--home", tmp_path, "--redis", "nowhere://x")
    assert failed.returncode == 1
    assert "the gateway ended at once" in failed.stderr
    assert "--redis must be redis://HOST:PORT" in failed.stderr


def test_a_port_that_another_program_holds_is_named_before_anything_slow(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        words = ["-X", "importtime", "-m", "genserve", "gateway"]
        command = [sys.executable, *words, "--port", str(port), "--home", str(tmp_path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"port {port} is in use: maybe a gateway holds it (./scripts/gateway stop ends" in done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "uvicorn" in imported
    assert not imported & {"torch", "gradio", "fastapi"}
