"""Several servers behind a proxy, in virtual time: which one a request goes to, and what became of it."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random

import simpy

from genserve.simulation.machine import Shape
from genserve.simulation.server import ANSWERED, Job, Server, Steps
from genserve.simulation.times import Times
from genserve.simulation.traffic import Arrival, Mix


@dataclass(frozen=True)
class Outcome:
    """What became of a request."""

    arrival: Arrival
    status: int
    seconds: float  # until its answer


@dataclass(frozen=True)
class Summary:
    """What became of many.

    Args:
        n: requests.
        refused: the share of them that was refused or given up.
        p50, p95: seconds, of those that were answered; nan if none was.
        images_s: images in the answers, per second.
    """

    n: int
    refused: float
    p50: float
    p95: float
    images_s: float

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], seconds: float) -> "Summary":
        """Return the summary of requests that came within this many seconds."""
        good = sorted(one.seconds for one in outcomes if one.status == ANSWERED)
        images = sum(one.arrival.images for one in outcomes if one.status == ANSWERED)
        lost = 1 - len(good) / len(outcomes) if outcomes else 0.0
        return cls(len(outcomes), lost, quantile(good, 0.5), quantile(good, 0.95), images / seconds)


def quantile(rising: Sequence[float], q: float) -> float:
    """Return the value that a share q of these are at most; nan if there are none."""
    return rising[max(0, math.ceil(q * len(rising)) - 1)] if rising else math.nan


class Replica:
    """A server as the proxy sees it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.open = 0  # requests without an answer


Policy = Callable[[Sequence[Replica], Random], Replica]


def round_robin() -> Policy:
    """Return the policy that takes one server after the other."""
    turn = -1

    def choose(replicas: Sequence[Replica], rng: Random) -> Replica:
        nonlocal turn
        turn += 1
        return replicas[turn % len(replicas)]

    return choose


def least_open() -> Policy:
    """Return the policy that takes a server with the fewest open requests."""

    def choose(replicas: Sequence[Replica], rng: Random) -> Replica:
        fewest = min(replica.open for replica in replicas)
        return rng.choice([replica for replica in replicas if replica.open == fewest])

    return choose


def two_choices() -> Policy:
    """Return the policy that draws two servers and takes the one with fewer open requests.

    Source: Mitzenmacher 2001, the power of two choices.
    """

    def choose(replicas: Sequence[Replica], rng: Random) -> Replica:
        return min(rng.sample(replicas, min(2, len(replicas))), key=lambda replica: replica.open)

    return choose


POLICIES: dict[str, Callable[[], Policy]] = {
    "round-robin": round_robin,
    "least-open": least_open,
    "two-choices": two_choices,
}


class Fleet:
    """Servers of one shape behind a proxy.

    Args:
        env: the virtual time.
        shape, times: of every server.
        policy: key of POLICIES.
        n: servers that are ready at the beginning.
        seed: of the policy's draws.

    Raises:
        ValueError: there is no such policy, or n < 1.
    """

    def __init__(
        self, env: simpy.Environment, shape: Shape, times: Times, policy: str, n: int, seed: int
    ) -> None:
        if policy not in POLICIES:
            raise ValueError(f"policies are {', '.join(POLICIES)}, got {policy!r}")
        if n < 1:
            raise ValueError(f"at least 1 server must be ready, got {n}")
        self._env, self._shape, self._times = env, shape, times
        self._choose, self._rng = POLICIES[policy](), Random(seed)
        self.ready = [Replica(Server(env, shape, times)) for _ in range(n)]
        self.starting = 0
        self.outcomes: list[Outcome] = []

    def start(self, seconds: float) -> None:
        """Start one more server, which is ready after this time."""
        self.starting += 1
        self._env.process(self._start(seconds))

    def _start(self, seconds: float) -> Steps:
        yield self._env.timeout(seconds)
        self.starting -= 1
        self.ready.append(Replica(Server(self._env, self._shape, self._times)))

    def ask(self, arrival: Arrival) -> simpy.Event:
        """Send a request to the server that the policy names; return the event of its answer."""
        replica, began = self._choose(self.ready, self._rng), self._env.now
        replica.open += 1
        answered = self._env.event()

        def over(job: Job, status: int) -> None:
            replica.open -= 1
            self.outcomes.append(Outcome(job.arrival, status, self._env.now - began))
            answered.succeed()

        replica.server.ask(Job(arrival, over))
        return answered

    def drive(self, arrivals: Iterable[Arrival]) -> Steps:
        """Send requests at their times."""
        for arrival in arrivals:
            yield self._env.timeout(arrival.at - self._env.now)
            self.ask(arrival)

    def client(self, mix: Mix, rng: Random) -> Steps:
        """Ask again whenever the answer has come, for ever."""
        while True:
            yield self.ask(mix.request(self._env.now, rng))


def simulated(
    arrivals: Iterable[Arrival],
    *,
    shape: Shape,
    times: Times,
    n: int = 1,
    policy: str = "least-open",
    seed: int = 0,
) -> tuple[list[Outcome], list[Server]]:
    """Send requests to n servers and wait for every answer; return what became of each, and the servers.

    Raises:
        ValueError: as `Fleet`.
    """
    env = simpy.Environment()
    fleet = Fleet(env, shape, times, policy, n, seed)
    requests = list(arrivals)
    env.process(fleet.drive(requests))
    limit = (requests[-1].at if requests else 0.0) + 2 * shape.deadline_s
    while len(fleet.outcomes) < len(requests) and env.peek() < limit:
        env.step()
    left = len(requests) - len(fleet.outcomes)
    if left:
        raise RuntimeError(
            f"{left} requests have no answer, {2 * shape.deadline_s:g} s after the last one came"
        )
    return fleet.outcomes, [replica.server for replica in fleet.ready]
