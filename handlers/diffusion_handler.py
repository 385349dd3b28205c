"""TorchServe handler of a diffusion archive: settings in, pictures out."""

import torch

from genserve.api_diffusion import DiffusionRequest
from genserve.diffusion import Sampler, See, guided, sampler_named, watched
from genserve.noise import Streams
from genserve.replies import Notes
from genserve.schedules import levels
from genserve.torchserve import EngineHandler


class DiffusionHandler(EngineHandler):
    """Draws images from noise with the sampler, schedule, class and guidance a request asks for."""

    Request = DiffusionRequest

    def sampler(self, request: DiffusionRequest, see: See | None, notes: Notes) -> Sampler:
        """Return the sampler of a resolved request; every image starts from its own stream of noise."""
        n, spec = request.num_samples, self.spec
        noise = Streams(request.seed, request.indices)
        sigmas = levels(request.schedule, request.steps, spec.sigma_min, spec.sigma_max, spec.tuned)
        x_t = sigmas[0].item() * noise(torch.empty(n, *spec.shape, device=self.device))
        y = torch.tensor(request.label or [spec.no_class] * n, device=self.device)
        plain = sampler_named(request.sampler, x_t, sigmas, y, eta=request.eta or 0.0, noise=noise)
        inner = watched(plain, see) if see else plain
        return guided(inner, request.guidance, spec.no_class) if request.guidance != 1 else inner
