"""Routes of training jobs: ask for one, look at it, cancel it, have it go on."""

import asyncio
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from genserve.gateway import access, json_bodies
from genserve.gateway.jobs.bounds import check_served
from genserve.gateway.jobs.progress import SAMPLES, events, progress
from genserve.gateway.jobs.queue import Queue
from genserve.gateway.jobs.record import Job, Jobs, as_json
from genserve.gateway.jobs.settings import checked, configurations
from genserve.learning.programs import PROGRAMS
from genserve.operate.archive import NAME
from genserve.operate.logs import end_of
from genserve.serving.fields import BadRequest, Fields, echo, field

OPEN_MAX = 100  # jobs that have not ended
AGAIN_S = 60  # after which a client may ask for one more
NAME_MAX = 64  # characters of a model's name


class JobRequest(Fields):
    """What is to be trained."""

    program: str = field("", "the training program", one_of=list(PROGRAMS))
    config: str | None = field(
        None,
        "a configuration; if not given, the program's defaults",
        "a name of GET /jobs/configs",
    )
    overrides: dict[str, Any] = field(
        {}, "settings that differ from it, nested or with dotted keys", "settings of the program"
    )
    serve_as: str | None = field(
        None,
        "name of the model once it is trained; an existing one is rolled over",
        f"letters, digits, '.', '_' and '-', at most {NAME_MAX}",
    )


def queue_of(request: Request) -> Queue:
    """Return the queue of the gateway that a request has come to."""
    queue: Queue = request.app.state.gateway.jobs
    return queue


Shared = Annotated[Queue, Depends(queue_of)]
router = APIRouter(prefix="/jobs", tags=["jobs"], dependencies=[Depends(access.admin)])


@router.post("", status_code=202, openapi_extra=json_bodies.described(JobRequest))
async def create(request: Request, queue: Shared, response: Response) -> dict[str, Any]:
    """Take a training job; it waits for its turn."""
    fields = await json_bodies.read(request, JobRequest)
    job = await asyncio.to_thread(add, queue, fields)
    response.headers["Location"] = f"/jobs/{job.id}"
    return view(queue.jobs, job)


def add(queue: Queue, fields: JobRequest) -> Job:
    """Return the job that a client asks for, after it was checked and put into the queue.

    Raises:
        BadRequest: something of it is wrong.
        HTTPException: too many jobs wait, or the folder of runs cannot be written.
    """
    if not fields.program:
        raise BadRequest("program", "it must be given", ", ".join(PROGRAMS))
    name = fields.serve_as
    if name is not None and (len(name) > NAME_MAX or not re.fullmatch(NAME, name)):
        allowed = f"letters, digits, '.', '_' and '-', at most {NAME_MAX}"
        raise BadRequest("serve_as", f"no name of a model: {echo(name)!r}", allowed)
    settings = checked(queue.options, fields.program, fields.config, fields.overrides)
    if name is not None:
        check_served(fields.program, settings)
    if len(queue.jobs.open()) >= OPEN_MAX:
        reason = f"{OPEN_MAX} jobs wait: cancel one, or ask again later"
        raise HTTPException(429, reason, {"Retry-After": str(AGAIN_S)})
    id = f"{fields.config or fields.program}-{secrets.token_hex(4)}"
    values = {name: getattr(fields, name) for name in JobRequest.model_fields}
    with _keeping(queue):
        queue.start()
        job = queue.jobs.add(Job(id=id, **values), settings | {"name": id})
        queue.put(job)
    return job


@contextmanager
def _keeping(queue: Queue) -> Iterator[None]:
    """Answer 503 if jobs cannot be written."""
    try:
        yield
    except OSError as error:
        reason = f"{error.filename or queue.jobs.folder}: {error.strerror or error}"
        raise HTTPException(503, f"no job can be kept ({reason})") from error


def view(jobs: Jobs, job: Job) -> dict[str, Any]:
    """Return a job as its clients see it."""
    return as_json(job) | progress(jobs, job)


@router.get("")
def index(queue: Shared) -> dict[str, list[dict[str, Any]]]:
    """Return all jobs, the newest first."""
    return {"jobs": [view(queue.jobs, job) for job in queue.jobs.all()]}


@router.get("/configs")
def configs(queue: Shared) -> dict[str, list[str]]:
    """Return the training programs, and the configurations that a job may name."""
    return {"programs": list(PROGRAMS), "configs": list(configurations(queue.options))}


@router.get("/{id}")
def show(id: str, queue: Shared) -> dict[str, Any]:
    """Return a job: its state, step of steps, images per second, loss, seconds left and samples."""
    return view(queue.jobs, queue.jobs.get(id))


@router.delete("/{id}", status_code=202)
def cancel(id: str, queue: Shared) -> dict[str, Any]:
    """Cancel a job: its program ends at its next checkpoint, from which it can go on."""
    with _keeping(queue):
        job = queue.jobs.cancel(id)
    return view(queue.jobs, job)


@router.post("/{id}/resume", status_code=202)
def resume(id: str, queue: Shared) -> dict[str, Any]:
    """Have a job that was cancelled, or that failed, go on from its last checkpoint."""
    with _keeping(queue):
        job = queue.jobs.resume(id)
        queue.put(job)
    return view(queue.jobs, job)


@router.get("/{id}/events")
async def follow(
    id: str, queue: Shared, last_event_id: Annotated[str, Header()] = "", after: str = ""
) -> StreamingResponse:
    """Return the metrics of a job as server-sent events, as they come, until it has ended."""
    await asyncio.to_thread(queue.jobs.get, id)
    known = last_event_id or after
    step = int(known) if re.fullmatch(r"[0-9]{1,15}", known) else -1
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(events(queue.jobs, id, step), headers=headers, media_type="text/event-stream")


@router.get("/{id}/log", response_class=PlainTextResponse)
def read_log(id: str, queue: Shared) -> str:
    """Return the last megabyte of what program and gateway wrote."""
    queue.jobs.get(id)
    return "".join(f"{line}\n" for line in end_of(queue.jobs.directory(id) / "log.txt") if line.strip())


@router.get("/{id}/{name}", response_class=Response)
def samples(id: str, name: str, queue: Shared) -> Response:
    """Return the last samples of a job: samples.png, or samples.txt of a language model."""
    queue.jobs.get(id)
    path = queue.jobs.directory(id) / name
    if name not in SAMPLES:
        raise HTTPException(404, f"a job has {', '.join(SAMPLES)}, log and events")
    if not path.is_file():
        raise HTTPException(404, f"there is no {name} yet")
    return Response(path.read_bytes(), media_type=SAMPLES[name], headers={"Cache-Control": "no-store"})
