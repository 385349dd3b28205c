"""Training as another server starts it: a job, whose answer can be waited for."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from genserve.gateway import access, json_bodies
from genserve.gateway.jobs.bounds import BATCHES_MAX, EPOCHS_MAX
from genserve.gateway.jobs.queue import Queue
from genserve.gateway.jobs.record import ENDED, Job, State
from genserve.gateway.jobs.routes import JobRequest, add, view
from genserve.gateway.jobs.routes import Shared as Waiting
from genserve.gateway.jobs.settings import shortened
from genserve.gateway.leaving import while_there
from genserve.serving.fields import BadRequest, Fields, field

LOOK_S = 0.5  # between two looks at a job that is waited for
RECIPES = {  # their name -> program and configuration here, one that an hour of a processor is enough for
    "diffusion": ("diffusion", "diffusion-digits"),
    "energy": ("energy", "energy-mnist"),
    "ebm": ("energy", "energy-mnist"),
    "gan": ("gan", "gan-mnist"),
    "vae": ("vae", "vae-mnist"),
}
WAIT = "answer when the job has ended; it goes on if you hang up"
router = APIRouter(tags=["routes of other servers"], dependencies=[Depends(access.admin)])


class Training(Fields):
    """What is to be trained, and for how long."""

    model_type: str = field("", "what is trained", one_of=list(RECIPES))
    epochs: int = field(1, "passes over the data", ge=1, le=EPOCHS_MAX)
    max_batches_per_epoch: int = field(100, "cuts each pass short", ge=1, le=BATCHES_MAX)
    wait: bool = field(False, WAIT)


@router.post("/train", status_code=202, openapi_extra=json_bodies.described(Training))
async def train(
    request: Request, queue: Waiting, wait: Annotated[bool, Query(description=WAIT)] = False
) -> Response:
    """Take a training job, as `POST /jobs` does; with `wait`, answer when it is done."""
    sent = await json_bodies.read(request, Training)
    job = await asyncio.to_thread(add, queue, requested(sent))
    if wait or sent.wait:
        job = await while_there(request.receive, ended(queue, job.id))
    return await asyncio.to_thread(answered, queue, job)


def requested(sent: Training) -> JobRequest:
    """Return the job that is meant.

    Raises:
        BadRequest: the model is not named.
    """
    if not sent.model_type:
        raise BadRequest("model_type", "it must be given", ", ".join(RECIPES))
    program, config = RECIPES[sent.model_type]
    overrides = {"epochs": sent.epochs, "max_batches_per_epoch": sent.max_batches_per_epoch}
    return JobRequest(program=program, config=config, overrides=shortened(program, overrides))


async def ended(queue: Queue, id: str) -> Job:
    """Return a job once it has ended."""
    while (job := await asyncio.to_thread(queue.jobs.get, id)).state not in ENDED:
        await asyncio.sleep(LOOK_S)
    return job


def answered(queue: Queue, job: Job) -> Response:
    """Return what a client gets: 202 for a job that goes on, 200 for one that is done.

    Raises:
        HTTPException: it has failed, or somebody has cancelled it.
    """
    address = f"/jobs/{job.id}"
    if job.state == State.FAILED:
        raise HTTPException(500, f"the job {job.id} has failed: {job.error}", {"Location": address})
    if job.state == State.CANCELLED:
        raise HTTPException(409, f"the job {job.id} was cancelled", {"Location": address})
    done = job.state == State.DONE
    message = f"{job.config} is trained" if done else f"{job.config} waits for its turn: ask {address}"
    body = {"message": message, "url": address} | view(queue.jobs, job)
    return JSONResponse(body, 200 if done else 202, {"Location": address})
