"""A real server is killed, scaled, rolled, stopped and started while clients ask it: none loses a picture."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from real_server import ROOT, free_ports

pytestmark = pytest.mark.server
SMALL = "weights/energy-mnist-pcd"


def chaos(tmp_path: Path, *words: str) -> str:
    """Run the program on a small model, and return its table."""
    output = tmp_path / "table.md"
    clients = ["--clients", "2", "--plain-clients", "2"]
    command = [sys.executable, ROOT / "scripts/chaos", "--run", SMALL, *clients]
    done = subprocess.run(
        [*map(str, command), "--output", str(output), "--port", str(free_ports(5)), *words],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert output.read_text() == done.stdout
    return done.stdout


def test_clients_that_ask_again_lose_nothing_in_any_trouble(tmp_path: Path) -> None:
    table = chaos(tmp_path, "--minutes", "0.1", "--troubles", "kill", "scale", "roll", "restart")
    for trouble in (r"killed \(-9\)", "scaled from 1 to", "rolled from 1.0 to 2.0", "stopped \\(drained\\)"):
        assert re.search(trouble, table), table
    kept = re.search(r"ask again: (\d+) requests, 0 lost", table)
    assert kept is not None, table
    assert int(kept[1]) > 20
    assert "Wrong pictures: 0." in table
    rolled = next(line for line in table.splitlines() if "rolled" in line)
    assert re.fullmatch(r"\| .* \| 1 \| \d+ x 200 \| [\d.]+ s \|", rolled), "a roll loses nothing for anybody"


def test_a_soak_holds_no_more_at_its_end_than_when_it_was_warm(tmp_path: Path) -> None:
    table = chaos(tmp_path, "--soak", "300")
    assert len(re.findall(r"\| (\d+) \| (?:Java|worker) \| \d+ MB \| \d+ \| \d+ \|", table)) == 10
    assert "0 lost" in table
