"""The times that a simulation is fed with, as measured on a machine and kept in a file."""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from genserve.files import read_json, write_json


@dataclass(frozen=True, kw_only=True)
class Times:
    """How long a server takes for what it does.

    Args:
        evaluation_ms: of one evaluation, by the number of lanes that evaluate side by side (1, 2, ...) and by
            its images. Between two measured numbers of images it is on a straight line, and so beyond them.
        host_ms: of a request's life outside the worker, and of the host's own work between two visits.
        answer_ms: of a worker for one answer beside its evaluations; while it makes one it does no other.
        request_core_ms: work of a core for a request beside its evaluations: in the host, in the worker, and
            in the client if that is on the same machine.
        start_s: from the start of a server until it is ready.
        about: where, when and how it was measured.

    Raises:
        ValueError: a table is empty, not counted from 1 lane on, or has a time that is not above 0.
    """

    evaluation_ms: Mapping[int, Mapping[int, float]]
    host_ms: float = 0.0
    answer_ms: float = 0.0
    request_core_ms: float = 0.0
    start_s: float = 0.0
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lanes = sorted(self.evaluation_ms)
        if not lanes or lanes != list(range(1, len(lanes) + 1)):
            raise ValueError(f"evaluation_ms must have a table for each of 1, 2, ... lanes, got {lanes}")
        for n, table in self.evaluation_ms.items():
            if not table or min(table) < 1 or min(table.values()) <= 0:
                raise ValueError(
                    f"evaluation_ms must have images >= 1 and times > 0, got {table} at {n} lanes"
                )
        for name in ("host_ms", "answer_ms", "request_core_ms", "start_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")

    def evaluation_s(self, images: int, lanes: int) -> float:
        """Return the seconds of an evaluation of this many images while this many lanes are busy.

        More lanes than were measured count as the most that were.
        """
        table = self.evaluation_ms[min(lanes, len(self.evaluation_ms))]
        sizes = sorted(table)
        if images in table or len(sizes) == 1:
            return table.get(images, table[sizes[0]]) / 1000
        k = min(max(bisect_left(sizes, images), 1), len(sizes) - 1)
        low, high = list(pairwise(sizes))[k - 1]
        slope = (table[high] - table[low]) / (high - low)
        return max(table[low] + slope * (images - low), min(table.values()) / 2) / 1000

    def per_second(self, images: int, lanes: int) -> float:
        """Return the images per second that this many lanes evaluate in batches of this size."""
        return lanes * images / self.evaluation_s(images, lanes)


def read_times(file: Path) -> Times:
    """Return the times of a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it has other keys, or values that are not allowed.
    """
    values = read_json(file)
    try:
        values["evaluation_ms"] = {
            int(lanes): {int(images): float(ms) for images, ms in table.items()}
            for lanes, table in values["evaluation_ms"].items()
        }
        return Times(**values)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{file} must have times as `genserve simulate measure` writes them: {error}"
        ) from error


def write_times(file: Path, times: Times) -> None:
    """Write times into a file.

    Raises:
        OSError: it cannot be written.
    """
    write_json(file, asdict(times))
