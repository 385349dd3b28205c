"""TorchServe handler of an energy archive: noise or pictures in, pictures and their energies out."""

from genserve.serving.hosts.torchserve import Handler
from genserve.serving.requests.energy import EnergyRequest


class EnergyHandler(Handler):
    """Draws images by their energy; scores, refines, restores and explains those that are sent."""

    Request = EnergyRequest
