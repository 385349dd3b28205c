"""Measure only while the machine is quiet, and say how quiet it was.

Fixed work on all cores at once (machine.py) before and after each measurement takes the same time if nothing
else runs. What comes and goes in between is not seen.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

# A calibration may take this much longer than the best one of the call. Of 80 on an idle machine of two cores
# (a virtual one, Intel Xeon), 77 took at most 11 % longer than the best; the others 14, 19 and 26 %. With a
# neighbour that keeps one core busy for a tenth of the time, each of 8 took 16 to 21 % longer; for 0.3 of the
# time, 25 to 30 %; all the time, 43 to 56 %.
TOLERANCE = 0.12
FIRST = 5  # calibrations before anything is measured, so that one of them is quick
ATTEMPTS = 3  # at each measurement
TRIES = 10  # calibrations before an attempt, until one is quiet
PAUSE_S = 1.0  # after a measurement, and between tries: a server still clears up, threads still spin

Row = dict[str, Any]


class Calibration(NamedTuple):
    """How long the fixed work took, in seconds."""

    taken: float  # until the slowest core was done
    work: float  # of the processor, on the quickest core: what it takes without a neighbour

    @classmethod
    def of(cls, cores: Iterable[tuple[float, float]]) -> "Calibration":
        """Return the calibration of an answer of machine.py."""
        taken, work = zip(*cores, strict=True)
        return cls(max(taken), min(work))


class Quiet:
    """Brackets measurements with calibrations.

    Args:
        calibrate: calibrates once.
        pause: waits for seconds.

    Attributes:
        best: the least work of all calibrations. It is that of the processor, so that a neighbour that stays
            for the whole call does not pass for a slow machine.
    """

    def __init__(
        self, calibrate: Callable[[], Calibration], pause: Callable[[float], object] = time.sleep
    ) -> None:
        self._calibrate, self._pause = calibrate, pause
        self.best = min(calibrate().work for _ in range(FIRST))

    def measured(self, measure: Callable[[], Row]) -> Iterator[Row]:
        """Yield the figures of every attempt at one measurement; the last one is quiet if any is."""
        for attempt in range(1, ATTEMPTS + 1):
            before = self._rested()
            figures = measure()
            self._pause(PAUSE_S)
            calibration = {"before": before, "after": self._calibration()}
            row = figures | {"attempt": attempt, "calibration": calibration}
            yield row
            if slowdown(row, self.best) <= TOLERANCE:
                return

    def _rested(self) -> float:
        """Wait a while for the machine to be quiet; return the last calibration, quiet or not."""
        for _ in range(TRIES - 1):
            taken = self._calibration()
            if taken <= (1 + TOLERANCE) * self.best:
                return taken
            self._pause(PAUSE_S)
        return self._calibration()

    def _calibration(self) -> float:
        calibration = self._calibrate()
        self.best = min(self.best, calibration.work)
        return calibration.taken


def slowdown(row: Row, best: float) -> float:
    """Return by how much the slower calibration of a measurement is slower than the best of the call."""
    return float(max(row["calibration"].values()) / best - 1)
