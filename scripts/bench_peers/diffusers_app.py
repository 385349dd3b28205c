"""Peer (b): diffusers' DDIMPipeline of the same network behind FastAPI.

uvicorn diffusers_app:app --workers 2
"""

import os
from pathlib import Path

import torch
from diffusers import ConfigMixin, DDIMPipeline, DDIMScheduler, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from fastapi import FastAPI, Response
from loop import CLASSES, DTYPES, Ask, sheet
from torch import Tensor

from genserve.runs.directory import load_denoiser


class Eps(ModelMixin, ConfigMixin):
    """The denoiser as diffusers wants it: x_t at unit variance and a timestep in, eps out."""

    @register_to_config
    def __init__(self, sample_size: int = 28, in_channels: int = 1) -> None:
        super().__init__()
        self.denoiser = load_denoiser(Path(os.environ["BENCH_RUN"])).to(memory_format=torch.channels_last)
        self.denoiser = self.denoiser.to(DTYPES[os.environ["BENCH_PRECISION"]])
        self.y = torch.zeros(1, dtype=torch.long)

    def forward(self, x_vp: Tensor, t: Tensor) -> UNet2DOutput:
        """Return eps."""
        alpha_bar = scheduler.alphas_cumprod[t]
        sigma = ((1 - alpha_bar) / alpha_bar).sqrt()
        x_t = x_vp / alpha_bar.sqrt()
        return UNet2DOutput(sample=(x_t - self.denoiser(x_t, sigma.expand(len(x_t)), self.y)) / sigma)


torch.set_num_threads(1)
scheduler = DDIMScheduler(clip_sample=False)
unet = Eps()
pipeline = DDIMPipeline(unet, scheduler)
pipeline.set_progress_bar_config(disable=True)
app = FastAPI()


@app.post("/generate")
async def generate(ask: Ask) -> Response:
    """Draw."""
    generator = torch.Generator().manual_seed(ask.seed)
    unet.y = torch.randint(CLASSES, (ask.num_samples,), generator=generator)
    drawn = pipeline(
        ask.num_samples, generator, eta=1.0, num_inference_steps=ask.steps, output_type="np"
    ).images
    return Response(sheet(torch.from_numpy(drawn).permute(0, 3, 1, 2) * 2 - 1), media_type="image/png")
