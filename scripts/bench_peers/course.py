#!/usr/bin/env python3
"""Ask one server of the course's shipped families by 1 and by 32 clients; print requests per second.

    ./scripts/bench_peers/course.py                       every workload, three rounds: a quarter of an hour
    ./scripts/bench_peers/course.py --rounds 1 --seconds 5 --only text words

The clients run on the same cores. Each round has every workload once; the table shows medians over them.
"""

import base64
import json
import statistics
import subprocess
import sys
import tempfile
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

from clients import ROOT, finished, locust

PORT = 19280
CLIENTS = (1, 32)
SEVEN = base64.b64encode((ROOT / "docs" / "images" / "seven.png").read_bytes()).decode()
WORKLOADS: dict[str, tuple[str, str, dict[str, Any]]] = {  # name: archive, what it is, fields
    "gan": ("gan", "a digit", {"num_samples": 1}),
    "vae": ("vae", "a digit", {"num_samples": 1}),
    "bound": ("vae", "the bound of a digit, its class not known", {"images": SEVEN, "task": "bound"}),
    "classifier": ("classifier", "a picture of 28 x 28, resized, its ten classes", {"images": SEVEN}),
    "classifier-mnist": ("classifier-mnist", "a digit, its ten classes", {"images": SEVEN}),
    "text": ("text", "100 tokens", {"seed": 0}),
    "ngram": ("ngram", "100 words", {"seed": 0}),
    "words": ("words", "the ten nearest of a word", {"text": "river"}),
}


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=10, help="of each measurement (default: 10)")
    parser.add_argument("--only", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "bench-course.json")
    options = parser.parse_args()
    subprocess.run([ROOT / "scripts" / "install", "--dev"], check=True)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        names = dict.fromkeys(WORKLOADS[name][0] for name in options.only)
        store, home = Path(scratch) / "store", Path(scratch) / "home"
        build = [ROOT / "scripts" / "build_archives", "--output", store, *names]
        subprocess.run(list(map(str, build)), check=True)
        flags = ["--port", str(PORT), "--home", str(home), "--model-store", str(store)]
        subprocess.run([ROOT / "scripts" / "serve", "start", *flags], check=True)
        try:
            for _ in range(options.rounds):
                for name in options.only:
                    rows += measured(name, options.seconds)
        finally:
            subprocess.run([ROOT / "scripts" / "serve", "stop", *flags], check=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"command": sys.argv, "results": rows}, indent=1))
    print(table(rows))
    print(f"\nall figures: {options.output}")


def measured(name: str, seconds: int) -> list[dict[str, Any]]:
    """Return the figures of a workload, by few clients and by many."""
    archive, _, fields = WORKLOADS[name]
    address, rows = f"http://127.0.0.1:{PORT}/predictions/{archive}", []
    for clients in CLIENTS:
        asking = locust("ask.py", address, clients, seconds, BENCH_FIELDS=json.dumps(fields))
        rows.append({"workload": name, "clients": clients, **finished(asking, seconds)})
        print(f"  {name}, {clients}: {rows[-1]['requests_per_s']:.1f} requests/s", flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return medians over the rounds, Markdown."""
    lines = ["| | a request is | " + " | ".join(f"clients: {n}" for n in CLIENTS) + " | failed |"]
    lines.append("|---|---|" + "---:|" * (len(CLIENTS) + 1))
    for name in dict.fromkeys(row["workload"] for row in rows):
        mine = [row for row in rows if row["workload"] == name]
        cells = [f"`{WORKLOADS[name][0]}`", WORKLOADS[name][1]]
        for clients in CLIENTS:
            those = [row for row in mine if row["clients"] == clients]
            rate, p50 = (statistics.median(row[key] for row in those) for key in ("requests_per_s", "p50"))
            cells.append(f"{rate:.0f} (p50 {p50:.0f} ms)")
        cells.append(str(sum(row["failures"] for row in mine)))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
