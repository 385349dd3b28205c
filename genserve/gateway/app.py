"""The gateway as an ASGI program: its routes, and what every request passes before it comes to one."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

import genserve
from genserve.gateway import access, admin, errors, metrics, models, proxy, schema
from genserve.gateway.bodies import Bounded
from genserve.gateway.jobs import routes as jobs
from genserve.gateway.jobs.counts import Counts
from genserve.gateway.jobs.queue import Queue
from genserve.gateway.options import Options
from genserve.gateway.page import page
from genserve.gateway.peers import language, pictures, training
from genserve.gateway.quotas import Counted, Quotas
from genserve.gateway.state import Gateway
from genserve.gateway.upstream import Upstream

log = logging.getLogger(__name__)


def create_app(options: Options) -> FastAPI:
    """Return the gateway of these options.

    Raises:
        ValueError: they name a Redis that cannot be used.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        gateway: Gateway = app.state.gateway
        try:
            await asyncio.to_thread(gateway.jobs.start)
        except OSError as error:  # it can do everything else
            log.warning("no training jobs: %s", error)
        yield
        await asyncio.to_thread(gateway.jobs.close)
        await gateway.upstream.close()

    app = FastAPI(
        title="genserve", version=genserve.__version__, lifespan=lifespan,
        openapi_url=None,  # schema.py has it, and its pages
    )  # fmt: skip
    quotas = Quotas(options.limits, options.redis)
    gateway = Gateway(options, Upstream(options.find_server), quotas, Queue(options))
    app.state.gateway = gateway
    gateway.metrics.registry.register(Counts(gateway.jobs.jobs))
    errors.install(app)
    app.add_middleware(Bounded)  # the last one that is added comes first
    app.add_middleware(Counted, quotas=gateway.quotas)
    app.add_middleware(access.Access, tokens=options.tokens)
    app.add_middleware(metrics.Measured, metrics=gateway.metrics)
    schema.install(app)
    for part in (pictures, language, training, access, metrics, models, jobs, admin):
        app.include_router(part.router)
    proxy.install(app)

    @app.get("/live", tags=["operation"])
    def live() -> dict[str, str]:
        """Return that the gateway answers; `/health` says whether the models do."""
        return {"status": "live"}

    page.mount(app, gateway)
    return app
