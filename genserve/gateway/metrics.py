"""What a gateway counts, for Prometheus at /metrics."""

import time
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Depends, Request
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genserve.gateway import access

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 120)
router = APIRouter(tags=["operation"])


@dataclass
class Metrics:
    """The counts of one gateway; other parts of it may register their own."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        more: dict[str, Any] = {"registry": self.registry, "namespace": "genserve_gateway"}
        self.requests = Counter("requests", "Requests that were answered.", ["route", "status"], **more)
        self.seconds = Histogram(
            "seconds", "Time to the first byte of an answer.", ["route"], buckets=SECONDS, **more
        )
        self.open = Gauge("open", "Requests that are open.", **more)
        self.hang_ups = Counter("hang_ups", "Clients who left before their answer had ended.", **more)


class Measured:
    """The middleware that counts requests.

    Args:
        app: answers them.
        metrics: take the counts.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and count its answer, or that its client has left."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, metrics = time.perf_counter(), self._metrics

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = route_of(scope)
                metrics.requests.labels(route, message["status"]).inc()
                metrics.seconds.labels(route).observe(time.perf_counter() - began)
            await send(message)

        with metrics.open.track_inprogress():
            try:
                await self._app(scope, receive, counting)
            except ClientDisconnect:
                metrics.hang_ups.inc()


def route_of(scope: Scope) -> str:
    """Return the route that took a request; all that no route took are one."""
    taker = scope.get("route") or scope.get("endpoint")
    return str(getattr(taker, "path", "") or scope.get("root_path") or "none")


@router.get("/metrics", dependencies=[Depends(access.admin)], response_class=Response)
def metrics(request: Request) -> Response:
    """Return the counts in Prometheus' format."""
    counts: Metrics = request.app.state.gateway.metrics
    return Response(generate_latest(counts.registry), media_type=CONTENT_TYPE_LATEST)
