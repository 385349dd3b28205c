"""The smallest training jobs that there are, and how a test waits for one."""

import time
from pathlib import Path
from typing import Any

import httpx
from real_gateway import Gateway
from real_server import Server, free_ports

TINY: dict[str, Any] = {
    "max_batches_per_epoch": 20,
    "batch_size": 10,
    "epochs": 1,
    "net": {"channels": [8], "attention": [], "heads": 1},
    "checkpoint_every": 10,
}
WAIT_S = 1200  # a job has the lowest priority of all programs on the machine


def request(serve_as: str | None = None, **overrides: Any) -> dict[str, Any]:
    """Return the body that asks for a tiny job on digits, with these settings different."""
    more = {} if serve_as is None else {"serve_as": serve_as}
    return {
        "program": "diffusion", "config": "diffusion-digits", "overrides": TINY | overrides, **more
    }  # fmt: skip


def posted(client: httpx.Client, serve_as: str | None = None, **overrides: Any) -> str:
    """Ask for a tiny job and return its id."""
    answer = client.post("/jobs", json=request(serve_as, **overrides))
    assert answer.status_code == 202, answer.text
    id: str = answer.json()["id"]
    return id


def wait_for(client: httpx.Client, id: str, *states: str, step: int = 0) -> dict[str, Any]:
    """Wait until a job is in one of these states and has done this many steps; return it."""
    until = time.monotonic() + WAIT_S
    while (job := client.get(f"/jobs/{id}").json())["state"] not in states or job["step"] < step:
        assert job["state"] not in ("failed", "done", "cancelled"), [job, client.get(f"/jobs/{id}/log").text]
        assert time.monotonic() < until, job
        time.sleep(0.2)
    return job


def without_server(folder: Path) -> Gateway:
    """Return a gateway with no server behind it, which trains all the same."""
    return Gateway(Server(9, folder / "home", folder / "store"), free_ports(1), folder)
