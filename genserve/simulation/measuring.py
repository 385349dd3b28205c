"""Measure what a simulation is fed with: evaluations of a model, and what a real server does beside them."""

import os
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

import psutil
import torch

from genserve.backends import OPENVINO, usual
from genserve.compiling.convert import compile_run
from genserve.runs.contract import Spec
from genserve.runs.export import export
from genserve.runs.loading import load_served
from genserve.sampling.engine import Call
from genserve.simulation.crowd import timings

SIZES = (1, 2, 4, 8, 16, 32)
QUIET_S, QUIET_PERCENT = 0.25, 15.0  # a moment in which the cores are at most this busy is quiet
CLOCKS = {"wall": time.perf_counter, "cpu": time.thread_time}


def served(run: Path, budget: int, lanes: int) -> tuple[tuple[int, ...], dict[str, str], Call]:
    """Return a run as a server on this CPU has it, from an archive that is built without a wish.

    Returns:
        The shape of an image; backend and precision; the model.

    Raises:
        OSError, ValueError: as `export` and `compile_run`.
    """
    with tempfile.TemporaryDirectory() as folder:
        backend = usual(export(run, Path(folder)).kind.compiled)
        if backend == OPENVINO:
            compile_run(run, Path(folder))
        model = load_served(Path(folder), torch.device("cpu"), backend, budget=budget, lanes=lanes)
    by = {"backend": model.backend, "precision": model.precision}
    return tuple(cast(Spec, model.spec).shape), by, cast(Call, model.model)


def evaluation_ms(
    model: Call,
    shape: Sequence[int],
    lanes: int,
    *,
    sizes: Sequence[int] = SIZES,
    rounds: int = 5,
    seconds: float = 0.2,
    clock: str = "wall",
    patience_s: float = 0.0,
) -> dict[int, dict[int, float]]:
    """Time evaluations with 1 to `lanes` of them side by side; return medians over rounds.

    Args:
        model: as a server evaluates it.
        shape: of an image, (C, H, W).
        lanes: most evaluations side by side.
        sizes: images per evaluation.
        rounds: at least 1; in each of them all are timed.
        seconds: of each measurement.
        clock: "wall", or "cpu" for the time that the thread had a core: on a machine that others load, this
            is closer to what a machine of one's own takes.
        patience_s: how long to wait, in all, for moments in which other programs leave the cores alone.

    Returns:
        Milliseconds, by lanes and by images.
    """
    torch.set_num_threads(1)
    cells = [(n, k) for n in range(1, lanes + 1) for k in sizes]
    taken: dict[tuple[int, int], list[float]] = {cell: [] for cell in cells}
    until = time.monotonic() + patience_s
    for _ in range(rounds):
        for n, k in cells:
            while time.monotonic() < until and psutil.cpu_percent(QUIET_S) > QUIET_PERCENT:
                pass
            x = torch.zeros(k, *shape)
            point = (x, torch.ones(k), torch.zeros(k, dtype=torch.long))
            taken[n, k] += _side_by_side(lambda point=point: model(*point), n, seconds, CLOCKS[clock])  # type: ignore[misc]
    return {n: {k: 1000 * statistics.median(taken[n, k]) for k in sizes} for n in range(1, lanes + 1)}


def _side_by_side(
    evaluate: Callable[[], object], n: int, seconds: float, clock: Callable[[], float]
) -> list[float]:
    """Call in n threads for this long; return the mean seconds of an evaluation in each."""
    means: list[float] = []
    ready = threading.Barrier(n)

    def lane() -> None:
        with torch.no_grad():
            evaluate()
            ready.wait()
            end, began, done = time.perf_counter() + seconds, clock(), 0
            while time.perf_counter() < end:
                evaluate()
                done += 1
            means.append((clock() - began) / done)

    threads = [threading.Thread(target=lane) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return means


def beside_evaluations(address: str, server: int | None, step_ms: float, n: int = 100) -> dict[str, float]:
    """Ask a real, idle server for one image of one step, again and again; return its times of `Times`.

    Args:
        address: of a model's predictions.
        server: process id of the server, on this machine; without it the work of cores is not known, and 0.
        step_ms: of an evaluation of one image.

    Raises:
        OSError: the server does not answer.
        ValueError: it refuses.
    """
    timings(address, 10)
    before = _cpu_s(server)
    alone = timings(address, n)
    worked_ms = 1000 * (_cpu_s(server) - before) / n
    inside_ms = statistics.median(inside for _, inside in alone)
    return {
        "host_ms": round(statistics.median(1000 * total for total, _ in alone) - inside_ms, 3),
        "answer_ms": round(max(0.0, inside_ms - step_ms), 3),
        "request_core_ms": round(max(0.0, worked_ms - step_ms), 3) if server else 0.0,
    }


def _cpu_s(server: int | None) -> float:
    """Return the seconds of a core that a server's processes and this one have used."""
    if server is None:
        return 0.0
    top = psutil.Process(server)
    times = [process.cpu_times() for process in (top, *top.children(recursive=True), psutil.Process())]
    return float(sum(one.user + one.system for one in times))


def circumstances(**more: Any) -> dict[str, Any]:
    """Return where and when something is measured, and how loaded the machine is."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return more | {
        "at": datetime.now(timezone.utc).isoformat(timespec="minutes"),
        "load_average": [round(one, 1) for one in os.getloadavg()],
        "cores": cores,
        "machine": platform.machine(),
        "torch": torch.__version__,
    }
