"""Time the visits of TorchServe 0.12, and tell it what was counted; only this file imports it."""

import copy
import threading
import time
from collections.abc import Callable
from typing import Any

from genserve.serving.meter import Meter

SLICE_MIN_S, SLICE_MAX_S = 0.005, 0.1  # between two visits of the host
# The share of the requests that the host hands over at a time which may not be open, 1 in 13: room for those
# that are answered at once, such as refusals. If all were open, newcomers would wait in the host's queue.
SPARE = 13
TELL_EVERY_S = 1.0  # seconds; what was counted since then is lost with a worker that dies
HOST_SHARE, HOST_SHARE_EARLY = 0.05, 0.15  # of the time that its visits may take, and that an early one may
WORTH_A_VISIT = 8  # one reply for this many open requests


def places(batch: int) -> int:
    """Return how many requests may be open of those that the host hands over: the rest can be refused."""
    return batch - batch // SPARE


def tell(metrics: Any, meter: Meter, version: str) -> None:
    """Report to the host what the meter has counted since the last call, one line of stdout per counter.

    Args:
        metrics: the host's, as its context has them.
        version: of the model, by which two versions of a name are told apart.
    """
    from ts.metrics.dimension import Dimension  # type: ignore[import-untyped]

    # The host writes the ids of all open requests into every line, and changes them in another thread.
    metrics = copy.copy(metrics)
    metrics.request_ids = "all"
    for name, value, le in meter.growth():
        labels = {"ModelName": metrics.model_name, "ModelVersion": version, "Level": "Model"}
        labels |= {"le": le} if le else {}
        unit = "s" if name.endswith(("seconds_total", "seconds_sum")) else "count"
        metrics.add_metric(name, value, unit, dimensions=[Dimension(*label) for label in labels.items()])


def keep_telling(metrics: Any, meter: Meter, version: str) -> None:
    """Report every counter now, and once a second what has grown, in a thread of its own.

    Not at the host's visits: there are up to 200 a second, and none while a batch runs, for minutes maybe.
    """
    tell(metrics, meter, version)

    def run() -> None:
        while True:
            time.sleep(TELL_EVERY_S)
            tell(metrics, meter, version)

    threading.Thread(target=run, name="metrics", daemon=True).start()


class Slices:
    """Decide how long to keep the host waiting, so that its own work is a small share of the time.

    A client that has its answer often asks again at once, and the host's next visit is too soon for that: a
    visit that brought answers is followed by an early one.

    Args:
        clock: returns the time in seconds; a simulation has its own.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._left, self._away_s, self._answered = 0.0, 0.0, False

    def enter(self) -> float:
        """Note that the host has come; return for how many seconds to keep it."""
        if self._left:
            away = min(self._clock() - self._left, SLICE_MAX_S)
            self._away_s += 0.1 * (away - self._away_s)
        share = HOST_SHARE_EARLY if self._answered else HOST_SHARE
        return min(max(self._away_s / share, SLICE_MIN_S), SLICE_MAX_S)

    def leave(self, coming_back: bool, answered: bool) -> None:
        """Note that the host goes.

        Args:
            coming_back: it will be back at once, because requests are open.
            answered: it takes answers along.
        """
        self._left = self._clock() if coming_back else 0.0
        self._answered = answered


def worth_a_visit(n_open: int) -> int:
    """Return how many answers end a visit early, with this many requests open."""
    return max(1, n_open // WORTH_A_VISIT)
