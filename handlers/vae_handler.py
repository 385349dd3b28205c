"""TorchServe handler of a VAE archive: noise or pictures in, pictures, codes and likelihoods out."""

from genserve.serving.hosts.torchserve import Handler
from genserve.serving.requests.latents import VaeRequest


class VaeHandler(Handler):
    """Draws images from the prior; encodes, reconstructs and judges those that are sent."""

    Request = VaeRequest
