"""The jobs by state, for Prometheus."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from genserve.gateway.jobs.record import Jobs, State


class Counts(Collector):
    """Counts the jobs when somebody looks.

    Args:
        jobs: of a gateway.
    """

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def describe(self) -> list[GaugeMetricFamily]:
        """Return what there is to count, without counting."""
        return [GaugeMetricFamily("genserve_gateway_jobs", "Training jobs by state.", labels=["state"])]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the number of jobs in each state."""
        (family,) = self.describe()
        numbers = Counter(job.state for job in self._jobs.all())
        for state in State:
            family.add_metric([state.value], numbers[state])
        yield family
