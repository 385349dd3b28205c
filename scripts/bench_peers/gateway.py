#!/usr/bin/env python3
"""Ask one server by 32 clients, past a gateway and through it in turns; print the ratio of images/s.

    ./scripts/bench_peers/gateway.py                        five pairs of 15 seconds
    ./scripts/bench_peers/gateway.py --rounds 2 --seconds 5

The clients run on the same cores. Each pair begins with the other one, so that what the machine does beside
falls on both.
"""

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from clients import PYTHON, ROOT, environment, finished, locust

PORT, GATEWAY = 19380, 19390
CLIENTS, STEPS = 32, 25
PATH = "predictions/diffusion"
PLACES = {"server": f"http://127.0.0.1:{PORT}/{PATH}", "gateway": f"http://127.0.0.1:{GATEWAY}/{PATH}"}


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=15, help="of each measurement (default: 15)")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of each image (default: {STEPS})")
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "bench-gateway.json")
    options = parser.parse_args()
    subprocess.run([ROOT / "scripts" / "install", "--dev"], check=True)
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        store, home = Path(scratch) / "store", Path(scratch) / "home"
        subprocess.run([ROOT / "scripts" / "build_archives", "--output", store, "diffusion"], check=True)
        flags = ["--port", str(PORT), "--home", str(home), "--model-store", str(store)]
        subprocess.run([ROOT / "scripts" / "serve", "start", *flags], check=True)
        try:
            with gateway(GATEWAY, PORT, home):
                rows = paired(PLACES, options.rounds, options.seconds, options.steps)
        finally:
            subprocess.run([ROOT / "scripts" / "serve", "stop", *flags], check=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"command": sys.argv, "results": rows}, indent=1))
    print(summary(rows))
    print(f"\nall figures: {options.output}")


@contextlib.contextmanager
def gateway(port: int, server: int, home: Path) -> Any:
    """Run a gateway without limits until the block ends."""
    ports = ["--port", port, "--server-port", server, "--home", home]
    limits = ["--requests", 0, "--work", 0, "--open", 0]
    command = [str(word) for word in [PYTHON, "-m", "genserve", "gateway", *ports, *limits]]
    with subprocess.Popen(command, env=environment(), cwd=home.parent) as process:
        try:
            for _ in range(1200):
                with contextlib.suppress(OSError), urlopen(f"http://127.0.0.1:{port}/live", timeout=5):
                    break
                time.sleep(0.1)
            yield
        finally:
            process.terminate()


def paired(places: dict[str, str], rounds: int, seconds: int, steps: int) -> list[dict[str, Any]]:
    """Return the figures of each place in each round."""
    rows = []
    for k in range(-1, rounds):  # the first round warms both
        for name in sorted(places, reverse=bool(k % 2)):
            crowd = {"BENCH_STEPS": f"{steps}-{steps}", "BENCH_SAMPLES": "1-1"}
            asking = locust("load.py", places[name], CLIENTS, seconds, **crowd)
            figures = finished(asking, seconds)
            print(
                f"  {name}: {figures['images_per_s']:.1f} images/s, {figures['failures']} failed", flush=True
            )
            rows += [{"place": name, "round": k, **figures}] if k >= 0 else []
    return rows


def summary(rows: list[dict[str, Any]]) -> str:
    """Return medians, and the median of the pairs' ratios."""
    rates = {name: [row["images_per_s"] for row in rows if row["place"] == name] for name in PLACES}
    ratios = [through / past for past, through in zip(rates["server"], rates["gateway"], strict=True)]
    medians = ", ".join(f"{name} {statistics.median(rate):.1f}" for name, rate in rates.items())
    return (
        f"images/s: {medians}; ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    )


if __name__ == "__main__":
    main()
