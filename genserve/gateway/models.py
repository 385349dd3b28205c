"""Which models there are, what they are, and whether they can answer now."""

import asyncio
import json
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from genserve.gateway.state import Gateway, Shared
from genserve.operate import versions
from genserve.operate.versions import Version

router = APIRouter(tags=["models"])


@router.get("/models")
async def list_models(gateway: Shared) -> dict[str, Any]:
    """Return every model with its versions and their workers."""
    return {"models": [_listed(existing) for existing in await gateway.upstream.versions()]}


@router.get("/models/{name}")
async def describe_model(gateway: Shared, name: str) -> dict[str, Any]:
    """Return one model with its versions and its description: family, shape, classes, defaults, quality.

    Raises:
        BadRequest: there is no such model.
    """
    await gateway.upstream.check(name)
    existing = await asyncio.to_thread(lambda: versions.versions(gateway.options.server, name))
    return _listed(existing) | {"description": await described(gateway, name)}


@router.get("/", include_in_schema=False)
async def first(request: Request, gateway: Shared) -> Response:
    """Lead a browser to the page; answer a program as `/health` does."""
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse("/page/", 303)
    return await health(gateway)


@router.get("/health")
async def health(gateway: Shared) -> Response:
    """Return which models can answer now; 503 if one of those that are to have workers cannot."""
    defaults = [_default(existing) for existing in await gateway.upstream.versions()]
    able = {one.name: _able(one) for one in defaults}
    missing = [name for name, value in able.items() if value is False]
    names = ", ".join(missing) or ("" if any(able.values()) else "no model has a worker")
    status = {"status": "unhealthy" if names else "healthy", "models": able}
    error = {"error": f"not able to answer now: {names}", "message": "not able to answer now"}
    headers = {"Retry-After": "5"} if names else None
    return JSONResponse(status | (error if names else {}), 503 if names else 200, headers)


async def described(gateway: Gateway, name: str) -> dict[str, Any] | None:
    """Return what a model says of itself; None if it is none of ours, or cannot answer now."""
    async with gateway.upstream.predict(name, {"task": "describe"}) as answer:
        body = await answer.read()
    try:
        values = json.loads(body)
    except ValueError:
        return None
    return values if answer.status == 200 and isinstance(values, dict) and "family" in values else None


def _default(existing: list[Version]) -> Version:
    return next((one for one in existing if one.default), existing[0])


def _able(version: Version) -> bool | None:
    """Return whether a version can answer; None if it is to have no worker."""
    if not version.target:
        return None
    return any(worker.ready and not worker.leaving for worker in version.workers)


def _listed(existing: list[Version]) -> dict[str, Any]:
    states = ("id", "status", "gpu", "state", "open")
    rows = [
        {
            "version": one.version,
            "default": one.default,
            "archive": one.archive,
            "target": one.target,
            "ready": one.ready,
            "queued": one.queued,
            "workers": [{name: getattr(worker, name) for name in states} for worker in one.workers],
        }
        for one in existing
    ]
    return {"name": existing[0].name, "able": _able(_default(existing)), "versions": rows}
