"""Draw sixteen digits without a server: a model, a schedule, a sampler. Writes digits.png."""

from pathlib import Path

import torch

from genserve import Streams, ddim, grid, karras, load_model, located, model_config, png, sample, to_pixels

torch.set_num_threads(1)
directory = located("weights/diffusion-mnist")  # below this folder, else what genserve ships
model, config = load_model(directory), model_config(directory)
noise = Streams(seed=1, indices=range(16))  # one random stream per image
sigmas = karras(12, config.sigma_min, config.sigma_max)  # 12 falling noise levels, then 0
x_T = sigmas[0] * noise(torch.empty(16, *config.shape))
x_0 = sample(ddim(x_T, sigmas, torch.arange(16) % 10, eta=1.0, noise=noise), model)
Path("digits.png").write_bytes(png(grid(to_pixels(x_0))))
