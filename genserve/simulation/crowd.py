"""Ask a real server at planned times, whether it keeps up or not, and note what became of each request.

A request's time counts from when it was due, so that a client that lags does not hide a slow server. Needs
requests, which a server does without.
"""

import re
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from genserve.simulation.fleet import Outcome
from genserve.simulation.server import ANSWERED
from genserve.simulation.traffic import Arrival

CLIENTS = 128  # requests that may be open; more wait, and their time counts
ANSWER_S = 140.0  # a little longer than a server's own deadline
LOST = 0  # the status of a request without an answer


class Sessions(threading.local):
    """A session for each thread; no proxy of the environment comes between."""

    def __init__(self) -> None:
        import requests

        self.session = requests.Session()
        self.session.trust_env = False

    def post(self, address: str, fields: dict[str, Any]) -> Any:
        """Return the answer to a request."""
        return self.session.post(address, json=fields, timeout=ANSWER_S)


def fields_of(arrival: Arrival, seed: int) -> dict[str, int]:
    """Return what a client sends."""
    return {"num_samples": arrival.images, "steps": arrival.steps, "seed": seed}


def asked(address: str, arrivals: Iterable[Arrival]) -> list[Outcome]:
    """Send requests at their times and wait for every answer.

    Args:
        address: of a model, such as http://127.0.0.1:8080/predictions/diffusion.

    Raises:
        ValueError: the server refuses a request for good, or not one was answered.
    """
    import requests

    sessions, outcomes = Sessions(), list[Outcome]()

    def ask(arrival: Arrival, seed: int, began: float) -> None:
        try:
            answer = sessions.post(address, fields_of(arrival, seed))
            status = answer.status_code
            if 400 <= status < 500:
                raise ValueError(f"{address} answers {status}: {answer.text[:200]}")
        except requests.RequestException:
            status = LOST
        outcomes.append(Outcome(arrival, status, time.perf_counter() - began - arrival.at))

    with ThreadPoolExecutor(CLIENTS) as pool:
        began = time.perf_counter()
        futures = []
        for seed, arrival in enumerate(arrivals):
            time.sleep(max(0.0, began + arrival.at - time.perf_counter()))
            futures.append(pool.submit(ask, arrival, seed, began))
        for future in futures:
            future.result()
    if not any(one.status == ANSWERED for one in outcomes):
        raise ValueError(f"{address} answered none of {len(outcomes)} requests")
    return outcomes


def timings(address: str, n: int) -> list[tuple[float, float]]:
    """Ask for one image of one step, n times one after the other.

    Returns:
        Of each, the client's seconds, and the milliseconds in the worker by its own Server-Timing.

    Raises:
        OSError: the server does not answer.
        ValueError: it refuses, or has no Server-Timing.
    """
    sessions, taken = Sessions(), []
    for seed in range(n):
        began = time.perf_counter()
        answer = sessions.post(address, fields_of(Arrival(0.0, 1, 1), seed))
        seconds = time.perf_counter() - began
        parts = dict(re.findall(r"(\w+);dur=([\d.]+)", answer.headers.get("Server-Timing", "")))
        if answer.status_code != ANSWERED or "sample" not in parts:
            raise ValueError(f"{address} answers {answer.status_code}: {answer.text[:200]}")
        taken.append((seconds, float(parts["sample"]) + float(parts["encode"])))
    return taken
