"""What a worker counts; metrics.yaml declares the names, docs/operations.md explains them.

All are counters, and so is the histogram of times: they add up over workers, and their rates fall to 0 when
a model is gone, where a gauge would stay at its last value.
"""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from threading import Lock
from typing import NamedTuple

from genserve.sampling.lanes import Lanes

EVENTS = ("answered", "rejected", "refused", "failed", "late", "cancelled", "images", "queue_seconds")
# s; the host's own histograms end at 10, and a request may last until its deadline, which may be set higher
BUCKETS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 600)
LE = (*(f"{bound:g}" for bound in BUCKETS), "+Inf")


class Growth(NamedTuple):
    """The growth of a counter since the last report."""

    name: str
    value: float  # at least 0; seconds where the name says so
    le: str = ""  # upper bound in seconds, of a histogram's bucket


class Meter:
    """Add up what happens in one thread, for another thread that reports it.

    Args:
        lanes: the engine whose work is counted with it.
    """

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._lock = Lock()
        self._events = dict.fromkeys(EVENTS, 0.0)
        self._durations = [0] * len(LE)  # answered requests in each bucket
        self._duration_s = 0.0  # summed over them
        self._last: dict[tuple[str, str], float] = {}  # what each counter had grown to

    def add(self, event: str, value: float = 1) -> None:
        """Count an event.

        Raises:
            KeyError: it is none of EVENTS.
        """
        with self._lock:
            self._events[event] += value

    def took(self, seconds: float) -> None:
        """Count the time that an answered request was open."""
        with self._lock:
            self._durations[bisect_left(BUCKETS, seconds)] += 1
            self._duration_s += seconds

    def growth(self) -> Iterator[Growth]:
        """Yield what has grown since the last call; the first call yields every counter, at 0 as well.

        A counter that appears together with its first event hides this event from a rate.
        """
        for name, value, le in self._counters():
            last = self._last.get((name, le))
            if last is None or value > last:
                yield Growth(name, round(value - (last or 0), 6), le)
                self._last[name, le] = value

    def _counters(self) -> list[Growth]:
        """Return every counter as it stands."""
        totals = self._lanes.totals
        with self._lock:
            sums = self._events | {
                "batches": totals.batches,
                "evaluations": totals.items,
                "model_seconds": totals.busy_s,
                "lane_seconds": totals.lane_s,
                "open_seconds": totals.open_s,
                "open_request_seconds": totals.request_s,
                "open_image_seconds": totals.item_s,
            }
            buckets, seconds = list(accumulate(self._durations)), self._duration_s
        return [
            *(Growth(f"genserve_{name}_total", value) for name, value in sums.items()),
            *(Growth("genserve_request_seconds_bucket", n, le) for le, n in zip(LE, buckets, strict=True)),
            Growth("genserve_request_seconds_sum", seconds),
            Growth("genserve_request_seconds_count", buckets[-1]),
        ]
