"""TorchServe handler of a diffusion archive: settings in, pictures out."""

from genserve.serving.hosts.torchserve import Handler
from genserve.serving.requests.diffusion import DiffusionRequest


class DiffusionHandler(Handler):
    """Draws images from noise with the sampler, schedule, class and guidance a request asks for."""

    Request = DiffusionRequest
