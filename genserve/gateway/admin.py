"""Routes that change the models of the server, by the same calls as `genserve models`."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, Request

from genserve.crew import SLOTS
from genserve.gateway import access, json_bodies
from genserve.gateway.options import Options
from genserve.operate.api import Server
from genserve.operate.archive import NAME
from genserve.operate.deletion import delete
from genserve.operate.models import as_json
from genserve.operate.registration import register
from genserve.operate.rolling import roll, rollback
from genserve.operate.scaling import scale
from genserve.operate.versions import Version, models, versions
from genserve.sampling.noise import SEED_MAX
from genserve.serving.fields import BadRequest, Fields, echo, field


class Registration(Fields):
    """An archive to register."""

    file: str = field("", "an archive in the server's model store", "the name of a file")
    workers: int = field(1, "workers to start", ge=0, le=SLOTS)


class Scaling(Fields):
    """A number of workers."""

    workers: int | None = field(None, "workers that it is to have", f"0 to {SLOTS}", ge=0, le=SLOTS)
    version: str | None = field(None, "of the model; if not given, the default one", "a version of the model")
    now: bool = field(False, "do not wait for what is open, which may be answered 500")


class Roll(Fields):
    """A new version."""

    file: str = field("", "an archive in the server's model store", "the name of a file")
    keep: bool = field(False, "keep the old version registered, for a quick rollback")
    check_seed: int | None = field(
        None, "go on only if this seed gives the same picture from both versions",
        f"0 to {SEED_MAX}", ge=0, le=SEED_MAX,
    )  # fmt: skip


class Choice(Fields):
    """A version of a model."""

    version: str | None = field(None, "of the model", "a version of the model")
    now: bool = field(False, "do not wait for what is open, which may be answered 500")


router = APIRouter(prefix="/admin/models", tags=["admin"], dependencies=[Depends(access.admin)])


async def server_of(request: Request) -> Server:
    """Return the server behind the gateway that a request has come to.

    Raises:
        BadRequest: the model in the path has no name that a model can have, status 404.
    """
    name = request.path_params.get("name")
    if name is not None and not re.fullmatch(NAME, name):
        raise BadRequest("model", f"there is no model {echo(name)!r}", status=404)
    options: Options = request.app.state.gateway.options
    server: Server = await done(lambda: options.server)
    return server


async def done(call: Callable[[], Any]) -> Any:
    """Return what a call that waits returns; the event loop does other things meanwhile."""
    return await asyncio.to_thread(call)


def file_of(server: Server, name: str) -> Path:
    """Return an archive of the model store, and no other file of the machine.

    Raises:
        BadRequest: it has no such name.
    """
    if not name or Path(name).name != name or "\0" in name or not name.isprintable():
        raise BadRequest("file", f"no archive of the model store: {echo(name)!r}", "the name of a file")
    return server.store / name if server.store else Path(name)


def described(version: Version) -> dict[str, Any]:
    """Return a version as JSON has it."""
    return as_json(version)


@router.get("")
async def index(request: Request) -> dict[str, Any]:
    """Return every version of every model, with its workers and what they have open."""
    server = await server_of(request)
    existing = await done(lambda: [one for name in models(server) for one in versions(server, name)])
    return {"models": [described(one) for one in existing]}


@router.get("/{name}")
async def show(name: str, request: Request) -> dict[str, Any]:
    """Return the versions of a model."""
    server = await server_of(request)
    return {"versions": [described(one) for one in await done(lambda: versions(server, name))]}


@router.post("", status_code=201, openapi_extra=json_bodies.described(Registration))
async def add(request: Request) -> dict[str, Any]:
    """Register an archive of the model store; answer when its workers have loaded it."""
    server, fields = await server_of(request), await json_bodies.read(request, Registration)
    file = file_of(server, fields.file)
    return described(await done(lambda: register(server, file, fields.workers)))


@router.put("/{name}/scale", openapi_extra=json_bodies.described(Scaling))
async def rescale(name: str, request: Request) -> dict[str, Any]:
    """Give a version another number of workers; what is open in those that go is ended first."""
    server, fields = await server_of(request), await json_bodies.read(request, Scaling)
    if (workers := fields.workers) is None:
        raise BadRequest("workers", "it must be given", f"0 to {SLOTS}")
    return described(await done(lambda: scale(server, name, workers, fields.version, now=fields.now)))


@router.post("/{name}/roll", openapi_extra=json_bodies.described(Roll))
async def replace(name: str, request: Request) -> dict[str, Any]:
    """Have a new version take over; the old one goes when nothing of it is open."""
    server, fields = await server_of(request), await json_bodies.read(request, Roll)
    file = file_of(server, fields.file)
    rolled = await done(lambda: roll(server, name, file, keep=fields.keep, check_seed=fields.check_seed))
    return asdict(rolled)


@router.post("/{name}/rollback", openapi_extra=json_bodies.described(Choice))
async def go_back(name: str, request: Request) -> dict[str, Any]:
    """Make a version that was kept the default again."""
    server, fields = await server_of(request), await json_bodies.read(request, Choice)
    return asdict(await done(lambda: rollback(server, name, fields.version)))


@router.post("/{name}/retire", openapi_extra=json_bodies.described(Choice))
async def retire(name: str, request: Request) -> dict[str, Any]:
    """End what a version has open, then stop its workers: it is answered 503."""
    server, fields = await server_of(request), await json_bodies.read(request, Choice)
    return described(await done(lambda: scale(server, name, 0, fields.version, now=fields.now)))


@router.delete("/{name}", openapi_extra=json_bodies.described(Choice))
async def remove(name: str, request: Request) -> dict[str, Any]:
    """Unregister a version once nothing of it is open."""
    server, fields = await server_of(request), await json_bodies.read(request, Choice)
    return described(await done(lambda: delete(server, name, fields.version, now=fields.now)))
