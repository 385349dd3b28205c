"""Requests that come at times of their own: Poisson arrivals at a rate that may change, mixed in size."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

Rate = Callable[[float], float]  # seconds since the beginning -> requests per second


@dataclass(frozen=True)
class Arrival:
    """A request on its way to a server."""

    at: float  # seconds since the beginning
    images: int
    steps: int  # one evaluation of the network for each image and step

    @property
    def work(self) -> int:
        """Network evaluations of all images together."""
        return self.images * self.steps


@dataclass(frozen=True)
class Mix:
    """Sizes of requests: images and steps are drawn evenly from these ranges, both ends included.

    Raises:
        ValueError: a range is empty or begins below 1.
    """

    images: tuple[int, int] = (1, 1)
    steps: tuple[int, int] = (4, 100)

    def __post_init__(self) -> None:
        for name in ("images", "steps"):
            low, high = getattr(self, name)
            if not 1 <= low <= high:
                raise ValueError(f"{name} must be two numbers, 1 <= fewest <= most, got {low} and {high}")

    @property
    def work(self) -> float:
        """Mean number of network evaluations of a request."""
        return sum(self.images) / 2 * sum(self.steps) / 2

    def request(self, at: float, rng: Random) -> Arrival:
        """Return a request of this mix."""
        return Arrival(at, rng.randint(*self.images), rng.randint(*self.steps))


def poisson(rate: Rate, most: float, seconds: float, mix: Mix, rng: Random) -> Iterator[Arrival]:
    """Yield requests in the order of their times.

    Source: Lewis and Shedler 1979, thinning: candidates come at the highest rate, and each is kept with the
    probability rate / highest.

    Args:
        rate: requests per second.
        most: no less than the rate ever is, above 0.
        seconds: the last one comes before this time.

    Raises:
        ValueError: most is not above 0, or below the rate.
    """
    if most <= 0:
        raise ValueError(f"the rate must be above 0, got {most}")
    at = rng.expovariate(most)
    while at < seconds:
        if (now := rate(at)) > most:
            raise ValueError(f"the rate is {now:g} after {at:g} s and may be at most {most:g}")
        if rng.random() * most < now:
            yield mix.request(at, rng)
        at += rng.expovariate(most)


def steady(rate: float, seconds: float, mix: Mix, rng: Random) -> Iterator[Arrival]:
    """Yield requests at a rate that does not change; raises as `poisson`."""
    return poisson(lambda at: rate, rate, seconds, mix, rng)
