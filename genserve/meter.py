"""What a worker tells of itself; metrics.yaml declares the names, docs/operations.md explains them."""

from collections import defaultdict
from collections.abc import Iterator
from time import perf_counter

from genserve.lanes import Lanes

EVERY_S = 1.0  # each value is a line that the host reads: not one a request


class Meter:
    """Adds up what happened and hands it out about once a second, so that it does not keep the host busy."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._sums: dict[str, float] = defaultdict(float)
        self._told: dict[str, float] = defaultdict(float)
        self._durations: list[float] = []
        self._told_at = perf_counter()

    def add(self, name: str, value: float = 1) -> None:
        """Add to a counter."""
        self._sums[name] += value

    def took(self, seconds: float) -> None:
        """Note how long an answered request was with us."""
        self._durations.append(seconds)

    def due(self, n_open: int) -> Iterator[tuple[str, str, float]]:
        """Yield (kind, name, value) of all that is to be told now; nothing where that was a moment ago."""
        now = perf_counter()
        if now - self._told_at < EVERY_S and n_open:
            return
        self._told_at = now
        lanes = self._lanes
        self._sums |= {
            "batches": lanes.batches,
            "evaluations": lanes.images,
            "model_seconds": lanes.busy_s,
            "open_seconds": lanes.open_s,
        }
        for name, value in self._sums.items():
            if value > self._told[name]:
                yield "counter", f"genserve_{name}_total", round(value - self._told[name], 6)
                self._told[name] = value
        yield "gauge", "genserve_open_requests", n_open
        for seconds in self._durations:
            yield "histogram", "genserve_request_seconds", round(seconds, 4)
        self._durations.clear()
