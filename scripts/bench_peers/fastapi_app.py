"""Peer (a): a FastAPI app with the loop in the request function, as course projects serve their samplers.

    uvicorn fastapi_app:app --workers 2

Its best settings here: a process a core with one torch thread, so that no request waits for another's.
"""

import os
from pathlib import Path

import torch
from fastapi import FastAPI, Response
from loop import DTYPES, Ask, images, sheet

from genserve.runs.directory import load_denoiser

torch.set_num_threads(1)
model = load_denoiser(Path(os.environ["BENCH_RUN"]))
model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
model = model.to(DTYPES[os.environ["BENCH_PRECISION"]])
app = FastAPI()


@app.post("/generate")
async def generate(ask: Ask) -> Response:
    """Draw."""
    return Response(sheet(images(model, ask.num_samples, ask.steps, ask.seed)), media_type="image/png")
