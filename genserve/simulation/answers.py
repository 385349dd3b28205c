"""The questions that a simulation answers, each as rows of a table."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

import simpy

from genserve.simulation.autoscaler import AS_DEPLOYED, Autoscaler
from genserve.simulation.fleet import POLICIES, Fleet, Summary, simulated
from genserve.simulation.machine import Shape
from genserve.simulation.server import Steps
from genserve.simulation.times import Times
from genserve.simulation.traffic import Mix, poisson, steady

DAY_S = 86_400
WARM_S = 10.0  # at the beginning of a simulation, before its requests count


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What all simulations of a command share.

    Args:
        times: of every server's machine.
        shape: of every server.
        mix: of the requests.
        seconds: of each simulation.
        seed: of arrivals and draws.
    """

    times: Times
    shape: Shape
    mix: Mix
    seconds: float
    seed: int

    def rate(self, load: float, n: int = 1) -> float:
        """Return the requests per second that are this share of what n servers evaluate in full batches."""
        return load * n * self.shape.capacity(self.times) / self.mix.work

    def steady(self, rate: float, n: int, policy: str) -> tuple[Summary, float, float]:
        """Simulate a steady load; return its summary, and utilisation and backlog of the servers.

        Returns:
            The share of the cores in use, and the open images per evaluator.
        """
        arrivals = list(steady(rate, WARM_S + self.seconds, self.mix, Random(self.seed)))
        shape, times = self.shape, self.times
        outcomes, servers = simulated(arrivals, shape=shape, times=times, n=n, policy=policy, seed=self.seed)
        counted = [one for one in outcomes if one.arrival.at >= WARM_S]
        totals = [server.counted() for server in servers]
        lane_s = sum(one.lane_s for one in totals)
        cores_s = lane_s * shape.cores / (shape.lanes * shape.workers)
        cpu = sum(one.cpu_s for one in totals) / cores_s
        return Summary.of(counted, self.seconds), min(cpu, 1.0), sum(one.item_s for one in totals) / lane_s


def by_policy(
    setup: Setup, replicas: Sequence[int], loads: Sequence[float]
) -> Iterator[tuple[int, float, dict[str, Summary]]]:
    """Yield the number of servers, the load and the summary under each policy."""
    for n in replicas:
        for load in loads:
            rate = setup.rate(load, n)
            yield n, load, {policy: setup.steady(rate, n, policy)[0] for policy in POLICIES}


def crowded(setup: Setup, clients: int) -> Summary:
    """Return what this many clients get from one server, each of which asks again at once."""
    env = simpy.Environment()
    fleet = Fleet(env, setup.shape, setup.times, "least-open", 1, setup.seed)
    for k in range(clients):
        env.process(fleet.client(setup.mix, Random(setup.seed + k)))
    env.run(until=WARM_S + setup.seconds)
    counted = [one for one in fleet.outcomes if one.arrival.at + one.seconds >= WARM_S]
    return Summary.of(counted, setup.seconds)


def needed(setup: Setup, pictures: float, peak: float, p95_s: float) -> tuple[int, Summary, float]:
    """Return the fewest servers that keep a p95 at the peak of a day, their summary and utilisation.

    Args:
        pictures: per day.
        peak: the highest rate as a multiple of the day's mean.
        p95_s: seconds that 95 % of the requests must be answered in; none may be refused.

    Raises:
        ValueError: a single request on an idle server takes longer.
    """
    rate = peak * pictures / DAY_S / (sum(setup.mix.images) / 2)
    n = max(1, math.ceil(rate / setup.rate(1.0)))
    alone = setup.steady(setup.rate(0.02), 1, "least-open")[0].p95
    if alone > p95_s:
        raise ValueError(f"p95 must be at least {alone:.3g} s, which an idle server takes, got {p95_s:g}")
    while True:
        summary, cpu, _ = setup.steady(rate, n, "least-open")
        if summary.refused == 0 and summary.p95 <= p95_s:
            return n, summary, cpu
        n += 1


@dataclass(frozen=True)
class Surge:
    """A load that grows, as a multiple of what it was."""

    name: str
    factor: Callable[[float], float]  # seconds since it begins to grow -> multiple
    most: float


SURGES = {
    surge.name: surge
    for surge in (
        Surge("x 2 at once", lambda s: 2.0, 2.0),
        Surge("x 4 at once", lambda s: 4.0, 4.0),
        Surge("x 4 for 60 s", lambda s: 4.0 if s < 60 else 1.0, 4.0),
        Surge("x 4 in 5 min", lambda s: min(4.0, 1 + s / 100), 4.0),
    )
}
CALM_S = 120.0  # before a surge


@dataclass(frozen=True)
class Ride:
    """What a fleet went through in a surge.

    Args:
        first_s: seconds from its beginning until the first new server was ready; nan if none was.
        pods: servers at the end.
        backlog: most images per evaluator at a time.
        summary: of the requests that came from its beginning on.
    """

    first_s: float
    pods: int
    backlog: float
    summary: Summary


def ridden(setup: Setup, surge: Surge, signal: str, n: int, start_s: float, load: float) -> Ride:
    """Simulate a surge over a fleet that is scaled as deployed.

    Args:
        signal: key of AS_DEPLOYED.
        n: servers at the beginning.
        start_s: from a decision until a new server takes requests.
        load: of two servers before the surge, whatever n is.
    """
    calm, env = setup.rate(load, 2), simpy.Environment()

    def rate(at: float) -> float:
        return calm * (surge.factor(at - CALM_S) if at >= CALM_S else 1.0)

    fleet = Fleet(env, setup.shape, setup.times, "least-open", n, setup.seed)
    scaler = Autoscaler(env, fleet, replace(AS_DEPLOYED[signal], start_s=start_s))
    backlog = 0.0

    def watch() -> Steps:
        nonlocal backlog
        while True:
            yield env.timeout(1.0)
            lanes = sum(one.server.shape.lanes * one.server.shape.workers for one in fleet.ready)
            backlog = max(backlog, sum(one.server.open_images for one in fleet.ready) / lanes)

    seconds = CALM_S + setup.seconds
    env.process(watch())
    env.process(fleet.drive(poisson(rate, surge.most * calm, seconds, setup.mix, Random(setup.seed))))
    env.run(until=seconds + setup.shape.deadline_s)
    outcomes = [one for one in fleet.outcomes if one.arrival.at >= CALM_S]
    grown = [at for at, _ in scaler.history[1:] if at >= CALM_S]
    first = grown[0] + start_s - CALM_S if grown else math.nan
    return Ride(first, scaler.history[-1][1], backlog, Summary.of(outcomes, setup.seconds))
