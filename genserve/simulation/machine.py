"""The machine of a server in virtual time: how it is shared, what its cores do, and what was counted."""

from dataclasses import dataclass

import yaml

from genserve.places import located
from genserve.serving.hosts.visits import places
from genserve.serving.service import DEADLINE_S
from genserve.simulation.times import Times


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How a server runs.

    Args:
        cores: of its machine; its workers share them as lanes. A GPU is one core.
        workers: processes with an engine each, which take their requests from one queue.
        budget: most images in one evaluation.
        places: requests that a worker may have open.
        queue: requests that may wait in the host.
        deadline_s: of every request.

    Raises:
        ValueError: a number is below 1.
    """

    cores: int = 2
    workers: int = 1
    budget: int = 32
    places: int = 192
    queue: int = 100
    deadline_s: float = DEADLINE_S

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")

    @property
    def lanes(self) -> int:
        """Evaluations side by side in one worker."""
        return max(1, self.cores // self.workers)

    def capacity(self, times: Times) -> float:
        """Return the images that all lanes evaluate per second in full batches, with nothing else to do."""
        return times.per_second(self.budget, self.lanes * self.workers)


def shipped() -> Shape:
    """Return how a server runs as shipped, by its own settings; two cores."""
    archive = yaml.safe_load(located("handlers/continuous.yaml").read_text())
    lines = located("config.properties").read_text().splitlines()
    host = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    settings = archive["handler"]
    return Shape(
        budget=settings["budget"],
        deadline_s=settings["deadline"],
        places=places(archive["batchSize"]),
        queue=int(host["job_queue_size"]),
    )


@dataclass
class Totals:
    """What a server has done so far; the names are those of `genserve.sampling.lanes.Totals`."""

    batches: int = 0
    items: int = 0
    busy_s: float = 0.0  # in evaluations, summed over the lanes
    cpu_s: float = 0.0  # of the cores, other work included
    item_s: float = 0.0  # time in which images were open, summed over them
    lane_s: float = 0.0  # time, summed over the lanes


class Cores:
    """The cores of a machine. Lanes use them; other work slows the lanes while all cores have one.

    Args:
        n: cores.
        times: of the machine.
    """

    def __init__(self, n: int, times: Times) -> None:
        self._n, self._times = n, times
        self._evaluating = 0
        self._owed_s = 0.0

    def owe(self, seconds: float) -> None:
        """Note other work of a core; a core without a lane does it at once."""
        if self._evaluating >= self._n:
            self._owed_s += seconds

    def begin(self, images: int) -> float:
        """Begin an evaluation; return its seconds, with the work that is owed to others."""
        self._evaluating += 1
        seconds = self._times.evaluation_s(images, min(self._evaluating, self._n))
        owed, self._owed_s = self._owed_s, 0.0
        return seconds + owed

    def end(self) -> None:
        """End an evaluation."""
        self._evaluating -= 1
