"""How far a run is, from its files; and its metrics as events, as they come."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from genserve.files import read_json
from genserve.gateway.jobs.record import ENDED, Job, Jobs
from genserve.operate.logs import end_of

SAMPLES = {"samples.png": "image/png", "samples.txt": "text/plain; charset=utf-8"}
LOOK_S = 0.5  # between two looks at a run that goes on
QUIET_S = 15.0  # after which a comment is sent, so that no one between closes the connection


def metrics(directory: Path, n: int = 0) -> list[dict[str, Any]]:
    """Return the last n lines of a run's metrics, or all; what is no number of JSON is None."""
    records = []
    for line in end_of(directory / "metrics.jsonl")[-n:]:
        try:
            record = json.loads(line, parse_constant=lambda name: None)
            if isinstance(record["step"], int):
                records.append(record)
        except (ValueError, TypeError, LookupError, RecursionError):  # a line that is being written
            continue
    return records


def progress(jobs: Jobs, job: Job) -> dict[str, Any]:
    """Return step of steps, loss, speed, seconds left and samples of a job; None is not known yet."""
    directory = jobs.directory(job.id)
    records = metrics(directory, 3)  # the last one may be half written, or have other measurements alone
    step = records[-1]["step"] if records else 0
    last: dict[str, Any] = {}
    for record in records:
        last |= record
    steps = _json(directory / "config.json").get("steps")
    settings = _json(directory / "settings.json")
    left = seconds_left(settings, last, steps - step) if isinstance(steps, int) else None
    return {
        "step": step,
        "steps": steps,
        "loss": last.get("loss"),
        "images_per_s": last.get("images_per_s"),
        "seconds_left": 0.0 if job.state in ENDED else left,
        "samples": [f"/jobs/{job.id}/{name}" for name in SAMPLES if (directory / name).is_file()],
        "stopping": job.state not in ENDED and jobs.stops(job.id) is not None,
    }


def seconds_left(settings: dict[str, Any], record: dict[str, Any], steps: int) -> float | None:
    """Return the time that the rest of the steps takes at the speed of a line of metrics."""
    for speed, per_step in (("images_per_s", ("batch_size",)), ("tokens_per_s", ("batch_size", "window"))):
        if rate := record.get(speed):
            items = steps * math.prod(settings.get(name, 1) for name in per_step)
            return round(float(items / rate), 1)
    return None


def _json(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = read_json(path)
    except (OSError, ValueError):
        return {}
    return values


async def events(jobs: Jobs, id: str, after: int) -> AsyncIterator[str]:
    """Yield a server-sent event per line of metrics and per state, until the job has ended.

    Args:
        after: the step of the last line that the client knows; -1 for none.
    """
    state, silent = None, 0.0
    while True:
        job = await asyncio.to_thread(jobs.get, id)  # before its metrics: then none is missed at the end
        lines = await asyncio.to_thread(metrics, jobs.directory(id))
        new = [record for record in lines if record["step"] > after]
        for record in new:
            after = record["step"]
            yield f"event: metrics\nid: {after}\ndata: {json.dumps(record)}\n\n"
        if job.state != state:
            state = job.state
            yield f"event: state\ndata: {json.dumps({'state': state.value, 'error': job.error})}\n\n"
        elif not new and (silent := silent + LOOK_S) >= QUIET_S:
            silent = 0.0
            yield ": still\n\n"
        if job.state in ENDED:
            return
        await asyncio.sleep(LOOK_S)
