"""Keep what a visit hands to TorchServe below what it takes from a worker at a time: more ends the worker."""

from collections.abc import Hashable, Mapping

from genserve.serving.limits import ANSWER_MAX
from genserve.serving.replies import Reply

ADMIT_S = 1.0  # seconds of reading newcomers in one visit; the host gives up a visit after a minute


def parcel(
    replies: Mapping[Hashable, Reply], most: int = ANSWER_MAX
) -> tuple[dict[Hashable, Reply], dict[Hashable, Reply]]:
    """Return the replies that go with this visit, in their order and at least one, and those that wait.

    Args:
        most: bytes of their bodies together.
    """
    now: dict[Hashable, Reply] = {}
    later: dict[Hashable, Reply] = {}
    n_bytes = 0
    for key, reply in replies.items():
        fits = not now or n_bytes + len(reply.body) <= most  # once too much, for all that follow
        (now if fits else later)[key] = reply
        n_bytes += len(reply.body)
    return now, later
