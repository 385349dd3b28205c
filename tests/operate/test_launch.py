"""How the process of a server is started: its command, its ports, its limits, the room on the disk."""

import re
import resource
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from real_server import ROOT, free_ports

from genserve.operate.launch import (
    FILES_MAX,
    LOOPBACK,
    PORTS,
    SPARE_BYTES,
    check_disk,
    check_ports,
    files_limited,
    virtual_machine,
)

CONFIG = ROOT / "config.properties"
UNITS = {"m": 2**20, "g": 2**30}


def setting(name: str) -> int:
    return int(re.findall(rf"^{name}=(\d+)$", CONFIG.read_text(), re.MULTILINE)[0])


def test_the_bodies_of_all_connections_fit_into_java_s_direct_memory() -> None:
    flags = virtual_machine(CONFIG)
    number, unit = re.findall(r"-XX:MaxDirectMemorySize=(\d+)([mg])", " ".join(flags))[0]
    # with a third to spare: the last buffer of a body is not full
    assert FILES_MAX * setting("max_request_size") * 4 / 3 <= int(number) * UNITS[unit]
    assert "-XX:-MaxFDLimit" in flags  # or Java would raise its own limit


def test_a_child_gets_the_limit_of_files_and_we_keep_ours() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    program = "import resource; print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    with files_limited(99):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["99", str(before[1])]
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
    with files_limited(10**9):
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


def test_a_port_in_use_is_named_and_an_address_of_another_machine_too() -> None:
    first = free_ports(PORTS)
    check_ports(LOOPBACK, first)
    with socket.socket() as other:
        other.bind((LOOPBACK, first + 3))
        with pytest.raises(SystemExit, match=rf"port {first + 3} is in use .*{first} to {first + 4}"):
            check_ports(LOOPBACK, first)
    with pytest.raises(SystemExit, match=r"--host 192\.0\.2\.1 is no address of this machine"):
        check_ports("192.0.2.1", first)


class Disk(NamedTuple):
    total: int
    used: int
    free: int


def test_a_disk_without_room_for_the_unpacked_archives_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Disk(0, 0, SPARE_BYTES + 10**7))
    check_disk(tmp_path, 10**7)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SystemExit, match=rf"the disk of {tmp_path} has 110 MB free, .* needs 111"):
        check_disk(tmp_path, 10**7 + 10**6)
