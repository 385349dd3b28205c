"""Who is let in: a request that can end in time, and big ones only as long as places are left for small ones.

The work of a request is its items times the network evaluations of each. Open requests share the lanes
equally (genserve.sampling.engine), so a newcomer of work w is done when every other one has had w too, or has
ended. A big request costs a client no more to ask for than a small one: without these rules a few lines of
shell would keep everybody else waiting.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from genserve.serving.jobs.base import Job
from genserve.serving.limits import WORK_MAX
from genserve.serving.replies import Reply, not_now

# how many sixths of the places requests of at most this part of the most work may take
SIXTHS = ((1 / 64, 6), (1 / 16, 5), (1.0, 4))


@dataclass
class Admitted:
    """A good request on its way through the lanes."""

    job: Job
    at: float  # time.perf_counter
    late: bool = False  # it was given up, and `collect` has not yet said so


def places_for(work: int, places: int, most: int = WORK_MAX) -> int:
    """Return how many requests may be open for a newcomer of this work to be one of them, at least 1.

    Args:
        most: work that one request may have.
    """
    sixths = next((sixths for part, sixths in SIXTHS if work <= most * part), SIXTHS[-1][1])
    return max(1, places * sixths // 6)


def seconds_to_end(work: int, remaining: Sequence[float], rate: float) -> float:
    """Return how long a newcomer would take beside others, under equal shares.

    Args:
        remaining: work that the others have left.
        rate: work that is done per second, above 0.
    """
    return (work + sum(min(left, work) for left in remaining)) / rate


def seconds_until_it_fits(work: int, remaining: Sequence[int], rate: float, limit_s: float) -> float:
    """Return after how long a newcomer would end within a limit, if no one else comes meanwhile.

    Args:
        limit_s: no less than the newcomer takes alone.
    """

    def fits(share: int) -> bool:
        return seconds_to_end(work, [max(0, left - share) for left in remaining], rate) <= limit_s

    share = bisect_left(range(max(remaining, default=0) + 1), True, key=fits)
    return _seconds_for(share, remaining, rate)


def seconds_until_ended(n: int, remaining: Sequence[int], rate: float) -> float:
    """Return after how long n of the open requests will have ended, if no one else comes meanwhile."""
    return _seconds_for(sorted(remaining)[n - 1], remaining, rate)


def refused(
    work: int,
    remaining: Sequence[int],
    rate: float,
    deadline_s: float,
    places: int | None,
    most: int = WORK_MAX,
) -> Reply | None:
    """Return why a newcomer cannot come in now; None if it can. On an idle machine it always can.

    So the first request after a busy time, in which the rate was low, shows what the rate is now.

    Args:
        remaining: work that each open request has left.
        rate: work per second; 0 if it is not known, and then no time is foreseen.
        deadline_s: of every request.
        places: for open requests; None for any number.
        most: work that one request may have.
    """
    seconds, n = 1.0, len(remaining)
    if places is not None and n >= (allowed := places_for(work, places, most)):
        why = f"{n} requests are open, and of this size at most {allowed} may be"
        if rate:
            seconds = seconds_until_ended(1 + n - allowed, remaining, rate)
    elif not remaining or not rate or (needed := seconds_to_end(work, remaining, rate)) <= deadline_s:
        return None
    elif work / rate > deadline_s:
        why = f"it would take {work / rate:.0f} s even alone, of {deadline_s:g} allowed"
        seconds = seconds_until_ended(n, remaining, rate)
    else:
        why = f"it would take {needed:.0f} s beside {n} others, of {deadline_s:g} allowed"
        seconds = seconds_until_it_fits(work, remaining, rate, deadline_s)
    again = max(1, math.ceil(min(seconds, deadline_s)))  # by then, all that are open now have ended
    return not_now(f"too busy: {why}; ask again in {again} s, or for less", again)


def _seconds_for(share: int, remaining: Sequence[int], rate: float) -> float:
    """Return after how long every open request will have had this much work done, or will have ended."""
    return sum(min(left, share) for left in remaining) / rate
