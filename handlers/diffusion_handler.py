"""TorchServe handler of a diffusion archive: settings in, pictures out."""

import torch

from genserve.sampling.noise import Streams
from genserve.sampling.samplers import Sampler, See
from genserve.serving.replies import Notes
from genserve.serving.requests.diffusion import DiffusionRequest
from genserve.serving.service import EngineHandler


class DiffusionHandler(EngineHandler):
    """Draws images from noise with the sampler, schedule, class and guidance a request asks for."""

    Request = DiffusionRequest

    def sampler(self, request: DiffusionRequest, see: See | None, notes: Notes) -> Sampler:
        """Return the sampler of a resolved request; every image starts from its own stream of noise."""
        n, spec = request.num_samples, self.spec
        noise = Streams(request.seed, request.indices)
        like = torch.empty(n, *spec.shape, device=self.device)
        y = torch.tensor(request.label or [spec.no_class] * n, device=self.device)
        return request.setting.build(noise, like, y, no_class=spec.no_class, see=see)
