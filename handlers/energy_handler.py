"""TorchServe handler of an energy archive: noise or pictures in, pictures and their energies out."""

from genserve.sampling.samplers import Sampler, See
from genserve.serving.replies import Notes
from genserve.serving.requests.energy import EnergyRequest
from genserve.serving.requests.energy_tasks import answering
from genserve.serving.service import EngineHandler


class EnergyHandler(EngineHandler):
    """Draws images by their energy; scores, refines, restores and explains those that are sent."""

    Request = EnergyRequest

    def sampler(self, request: EnergyRequest, see: See | None, notes: Notes) -> Sampler:
        """Return the sampler of a resolved request; what was sent with it is looked at here."""
        sent = request.pictures(self.spec) if request.images else None
        keep = request.kept(self.spec)
        return answering(request, self.spec, self.device, sent, keep, see, notes)
