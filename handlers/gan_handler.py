"""TorchServe handler of a GAN archive: a seed and a class in, pictures out, one evaluation each."""

from genserve.serving.hosts.torchserve import Handler
from genserve.serving.requests.latents import GanRequest


class GanHandler(Handler):
    """Draws images from noise with a generator."""

    Request = GanRequest
