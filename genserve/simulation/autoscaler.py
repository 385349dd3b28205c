"""A HorizontalPodAutoscaler in virtual time: late by its metric, its period and the start of a pod.

Source: the documentation of Kubernetes, "Horizontal Pod Autoscaling", algorithm details: the wanted number of
pods is the present one times value / target, rounded up, and within a tolerance of 0.1 nothing is done.
Left out: scaling down, which waits for ten minutes as deployed.
"""

import math
from dataclasses import dataclass, replace

import simpy

from genserve.simulation.fleet import Fleet
from genserve.simulation.machine import Totals
from genserve.simulation.server import Server, Steps

PERIOD_S = 15.0  # of the controller
TOLERANCE = 0.1
SIGNALS = ("cpu", "backlog")


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """How a fleet is scaled.

    Args:
        signal: "cpu", the share of the pods' cores that is in use, or "backlog", open images per evaluator.
        target: of the signal.
        window_s: over which the signal is averaged.
        scrape_s: between two readings of the counters.
        start_s: from the decision until a new pod takes requests.
        most: pods.
        step, every_s: at most this many pods are added within this time.

    Raises:
        ValueError: there is no such signal, or a number is not above 0.
    """

    signal: str
    target: float
    window_s: float
    scrape_s: float = 15.0
    start_s: float = 30.0
    most: int = 8
    step: int = 4
    every_s: float = 15.0

    def __post_init__(self) -> None:
        if self.signal not in SIGNALS:
            raise ValueError(f"signal must be one of {', '.join(SIGNALS)}, got {self.signal!r}")
        for name, value in vars(self).items():
            if name != "signal" and value <= 0:
                raise ValueError(f"{name} must be above 0, got {value}")


# deploy/kubernetes/base/scaling.yaml and deploy/kubernetes/components/keda/scaled.yaml; a test compares them.
# The rest are the controller's own defaults, and of a metrics server that reads every 15 s.
AS_DEPLOYED = {
    "cpu": Scaling(signal="cpu", target=0.7, window_s=15.0, step=2, every_s=30.0),
    "backlog": Scaling(signal="backlog", target=16.0, window_s=60.0),
}


def wanted(now: int, ratio: float) -> int:
    """Return the number of pods for a signal of `ratio` times its target, with this many now."""
    return now if abs(ratio - 1) <= TOLERANCE else max(1, math.ceil(now * ratio - 1e-9))


@dataclass(frozen=True)
class _Reading:
    at: float
    totals: dict[Server, Totals]  # as they were at that time


class Autoscaler:
    """Watches a fleet and adds servers to it.

    Args:
        env: the virtual time.
        fleet: of servers; it is never made smaller.
        scaling: the rule.
    """

    def __init__(self, env: simpy.Environment, fleet: Fleet, scaling: Scaling) -> None:
        self._env, self._fleet, self.scaling = env, fleet, scaling
        self._readings: list[_Reading] = []
        self._added: list[float] = []  # when
        self.history: list[tuple[float, int]] = [(0.0, len(fleet.ready))]  # seconds, pods, starting ones too
        env.process(self._read())
        env.process(self._decide())

    def value(self) -> float:
        """Return the signal over the window up to the last reading; 0.0 before the second one."""
        if len(self._readings) < 2:
            return 0.0
        last = self._readings[-1]
        since = last.at - max(self.scaling.window_s, self.scaling.scrape_s)
        first = next(reading for reading in self._readings if reading.at >= since - 1e-6)
        above = below = 0.0
        for server, new in last.totals.items():
            if (old := first.totals.get(server)) is None:  # too young to have a rate
                continue
            if self.scaling.signal == "cpu":
                above += new.cpu_s - old.cpu_s
                below += (last.at - first.at) * server.shape.cores
            else:
                above += new.item_s - old.item_s
                below += new.lane_s - old.lane_s
        value = above / below if below else 0.0
        return min(value, 1.0) if self.scaling.signal == "cpu" else value

    def _read(self) -> Steps:
        while True:
            servers = [one.server for one in self._fleet.ready]
            totals = {server: replace(server.counted()) for server in servers}
            self._readings.append(_Reading(self._env.now, totals))
            yield self._env.timeout(self.scaling.scrape_s)

    def _decide(self) -> Steps:
        # readings and decisions have nothing to do with each other: half a period apart
        yield self._env.timeout(PERIOD_S / 2)
        while True:
            yield self._env.timeout(PERIOD_S)
            ready, scaling = len(self._fleet.ready), self.scaling
            pods = ready + self._fleet.starting
            recent = sum(at > self._env.now - scaling.every_s for at in self._added)
            allowed = min(pods + max(0, scaling.step - recent), scaling.most)
            new = min(wanted(ready, self.value() / scaling.target), allowed) - pods
            for _ in range(new):
                self._added.append(self._env.now)
                self._fleet.start(scaling.start_s)
            if new > 0:
                self.history.append((self._env.now, pods + new))
