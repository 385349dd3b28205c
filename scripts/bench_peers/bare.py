"""The limit: the same model and sampler in one process, no server, at several batch sizes.

An energy is read once more where the sampler ends, as for a client.

    python bare.py ARCHIVE_FOLDER PRECISION STEPS SECONDS

Prints images/s by "loops x images in each", JSON.
"""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from genserve.precision import PRECISIONS
from genserve.runs.loading import load_model
from genserve.sampling.noise import Streams
from genserve.sampling.samplers import sample
from genserve.sampling.settings import Setting

folder, precision, steps, seconds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
spec, model = load_model(folder, torch.device("cpu"), PRECISIONS[precision])
cores = len(os.sched_getaffinity(0))
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


rates = {f"{cores // t} x {n}": rate(n, t) for t in sorted({1, cores}) for n in (1, 8, 16, 32, 64)}
print(json.dumps(rates))
