"""What the routes of a gateway share. A route takes it as an argument of the type `Shared`."""

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from genserve.gateway.jobs.queue import Queue
from genserve.gateway.metrics import Metrics
from genserve.gateway.options import Options
from genserve.gateway.quotas import Quotas
from genserve.gateway.upstream import Upstream


@dataclass
class Gateway:
    """What the routes share."""

    options: Options
    upstream: Upstream
    quotas: Quotas
    jobs: Queue
    metrics: Metrics = field(default_factory=Metrics)


def gateway_of(request: Request) -> Gateway:
    """Return the gateway that a request has come to."""
    gateway: Gateway = request.app.state.gateway
    return gateway


Shared = Annotated[Gateway, Depends(gateway_of)]
