"""Let a crowd of locust's clients loose on a server, and read what they saw."""

import json
import os
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv" / "bin" / "python"
PEERS = ROOT / "scripts" / "bench_peers"
WARM_S = 2  # of each measurement, before its seconds count


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONWARNINGS": "ignore", "PYTHONPATH": str(ROOT)} | more


def locust(file: str, address: str, clients: int, seconds: int, **settings: str) -> "subprocess.Popen[str]":
    """Let clients loose, as a file of scripts/bench_peers has them."""
    host, _, path = address.removeprefix("http://").partition("/")
    command = [
        PYTHON, "-m", "locust", "-f", PEERS / file, "--host", f"http://{host}", "--headless", "--json",
        "--users", clients, "--spawn-rate", clients, "--run-time", f"{WARM_S + seconds + 2}s",
        "--stop-timeout", "60", "--only-summary", "--loglevel", "ERROR",
    ]  # fmt: skip
    settings["BENCH_PATH"] = f"/{path}"
    return subprocess.Popen(
        [str(w) for w in command], env=environment(**settings), stdout=PIPE, stderr=PIPE, text=True
    )


def finished(process: "subprocess.Popen[str]", seconds: int) -> dict[str, Any]:
    """Return the figures of a load that has ended; rates are of the whole seconds between start and stop."""
    out, err = process.communicate()
    try:
        rows = json.loads(out)
    except ValueError:
        sys.exit(f"locust failed: {err[-2000:]}")
    times: dict[float, int] = {}
    for row in rows:
        for ms, n in row["response_times"].items():
            times[float(ms)] = times.get(float(ms), 0) + n
    requests = sum(row["num_requests"] for row in rows)
    began = int(min(row["start_time"] for row in rows)) + 1 + WARM_S
    window = range(began, began + seconds)
    per_second = [(int(row["name"]), row["num_reqs_per_sec"].get(str(t), 0)) for row in rows for t in window]
    return {
        "images_per_s": sum(n * count for n, count in per_second) / seconds,
        "requests_per_s": sum(count for _, count in per_second) / seconds,
        "requests": requests,
        "failures": sum(row["num_failures"] for row in rows),
        **{f"p{q}": percentile(times, q) for q in (50, 95, 99)},
    }


def percentile(times: dict[float, int], q: int) -> float:
    """Return a percentile, ms, of a histogram."""
    left = q / 100 * sum(times.values())
    for ms in sorted(times):
        left -= times[ms]
        if left <= 0:
            return ms
    return float("nan")
