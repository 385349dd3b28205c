"""Measure each system once in each round, bracketed by calibrations."""

import subprocess
import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path

from answering import Ask
from clients import finished, locust
from hosting import looping, served
from quiet import TOLERANCE, Quiet, Row, slowdown
from systems import System

STEPS = 25
WORKLOADS = {  # name: clients, images, steps
    "one-1": (1, "1-1", f"{STEPS}-{STEPS}"),
    "one-8": (8, "1-1", f"{STEPS}-{STEPS}"),
    "one-32": (32, "1-1", f"{STEPS}-{STEPS}"),
    "steps-32": (32, "1-1", "4-100"),
    "mixed-1": (1, "1-16", "4-100"),
    "mixed-8": (8, "1-16", "4-100"),
    "mixed-32": (32, "1-16", "4-100"),
}
LOOPED = "one-32"  # the workload that loops are the limit of
LATENCY = {"10 steps beside 200 steps": "200-200", "10 steps beside its own kind": "10-10"}


def measured(system: System, options: Namespace, quiet: Quiet, scratch: Path) -> list[Row]:
    """Return the figures of one system, in this round: a row for each attempt at each measurement."""
    rows: list[Row] = []

    def measure(workload: str, figures: Callable[[], Row], **more: str) -> None:
        row = {"system": system.name, "precision": system.precision, "workload": workload, **more}
        for attempt in quiet.measured(figures):
            rows.append(row | attempt)
            slower = slowdown(attempt, quiet.best)
            note = f", not quiet: {slower:.0%} slower" if slower > TOLERANCE else ""
            words = " ".join([workload, *more.values()])
            print(f"  {words}: {attempt['images_per_s']:.1f} images/s{note}", flush=True)

    if system.kind == "loop":
        if LOOPED in options.only:
            with looping(system, STEPS, options.seconds / 3, scratch) as ask:
                for shape in ask(None):  # each is a measurement, so that the best is chosen by its median
                    measure(LOOPED, partial(rate_of, ask, shape), loops=shape)
        return rows
    with served(system, scratch) as address:
        crowd(address, 32, "1-1", "4-30", 10)  # Java compiles what it runs often, and takes its time
        for name, (clients, samples, steps) in WORKLOADS.items():
            if name in options.only:
                measure(name, partial(crowd, address, clients, samples, steps, options.seconds))
        if "latency" in options.only and system.kind != "app" and system.model == "diffusion":
            for name, steps in LATENCY.items():
                measure(name, partial(latency, address, steps, options.seconds))
    return rows


def rate_of(ask: Ask, shape: str) -> Row:
    """Return the figures of loops without a server."""
    return {"images_per_s": ask(shape)[shape]}


def latency(address: str, steps: str, seconds: int) -> Row:
    """Return the figures of one client that asks for 10 steps, beside eight that ask for others."""
    others = load(address, 8, "1-1", steps, seconds + 8)
    time.sleep(4)
    row = crowd(address, 1, "1-1", "10-10", seconds)
    finished(others, seconds)
    return row


def crowd(address: str, clients: int, samples: str, steps: str, seconds: int) -> Row:
    """Return the figures of this many clients."""
    return finished(load(address, clients, samples, steps, seconds), seconds)


def load(address: str, clients: int, samples: str, steps: str, seconds: int) -> "subprocess.Popen[str]":
    """Let this many clients loose, and do not wait for them."""
    return locust("load.py", address, clients, seconds, BENCH_STEPS=steps, BENCH_SAMPLES=samples)
