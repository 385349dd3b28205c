"""The limit: the same model and sampler in one process, no server, at several batch sizes.

An energy is read once more where the sampler ends, as for a client.

    python bare.py ARCHIVE_FOLDER BACKEND PRECISION STEPS SECONDS
    python bare.py ARCHIVE_FOLDER BACKEND PRECISION STEPS SECONDS -    only what the input names

Prints images/s by "loops x images in each", a line of JSON for each; with -, first their list.
"""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from genserve.runs.loading import load_served
from genserve.sampling.noise import Streams
from genserve.sampling.samplers import sample
from genserve.sampling.settings import Setting

folder, backend, precision = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
steps, seconds = int(sys.argv[4]), float(sys.argv[5])
cores = len(os.sched_getaffinity(0))
served = load_served(folder, torch.device("cpu"), backend, precision, budget=32, lanes=cores)
if served.backend != backend:
    sys.exit(f"{backend} cannot run here")
spec: Any = served.spec
model: Any = served.model
setting = Setting.of(spec.defaults, sampler="ddim", steps=steps, eta=1.0, schedule="karras", guidance=1)


def loop(n: int) -> None:
    noise, y = Streams(1, range(n)), torch.arange(n) % 10
    x_0 = sample(setting.build(noise, torch.empty(n, *spec.shape), y, energy=spec.kind.slopes), model)
    if spec.walk is not None:
        model(x_0, torch.full((n,), spec.walk.read_sigma), torch.full((n,), spec.no_class))


def rate(n: int, threads: int) -> float:
    """Return images/s of loops of n images side by side: one that has all cores, or one a core."""
    loops = cores // threads
    with ThreadPoolExecutor(loops) as pool:
        torch.set_num_threads(threads)
        list(pool.map(loop, [n] * loops))
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            list(pool.map(loop, [n] * loops))
            done += n * loops
        return done / (time.perf_counter() - began)


every = [f"{loops} x {n}" for loops in sorted({1, cores}, reverse=True) for n in (1, 8, 16, 32, 64)]
if sys.argv[6:] == ["-"]:
    print(json.dumps(every), flush=True)
for shape in sys.stdin if sys.argv[6:] == ["-"] else every:
    loops, n = map(int, shape.split(" x "))
    print(json.dumps({f"{loops} x {n}": rate(n, cores // loops)}), flush=True)
