"""What an energy is asked for, as samplers: draw, score, refine, restore, explain."""

from typing import TypeVar

import torch
from torch import Tensor

from genserve.images import heat
from genserve.runs.contract import Spec
from genserve.sampling.langevin import Slope
from genserve.sampling.noise import Streams
from genserve.sampling.samplers import Query, Sampler, See, level
from genserve.serving.replies import Notes
from genserve.serving.requests.energy import EnergyRequest

T = TypeVar("T")


def answering(
    request: EnergyRequest,
    spec: Spec,
    device: torch.device,
    sent: Tensor | None,
    keep: Tensor | None,
    see: See | None,
    notes: Notes,
) -> Sampler:
    """The sampler of a resolved request: goes where its task says, and reads the energy where it ends.

    Energies are read without a class, so that they compare with each other and with the training images'.
    They go into notes, with their ranks.

    Args:
        sent: the pictures that came along, (N, C, H, W).
        keep: which of their pixels stay, (1, H, W) bool; none where there is no mask.
        see: watches the way.
    """
    walk, n = _set(spec.walk), request.num_samples
    nobody = torch.full((n,), spec.no_class, device=device)
    read_at = walk.read_sigma if request.task in ("sample", "restore") else _set(request.sigma)
    x = torch.empty(n, *spec.shape, device=device) if sent is None else sent.to(device)

    def note(slope: Slope, when: str = "") -> None:
        energies = [round(e, 4) for e in slope.energy.tolist()]
        notes[f"energy{when}"] = energies
        if walk.energies and read_at == walk.read_sigma:  # the training images were read like that
            notes[f"rank{when}"] = [walk.rank(e) for e in energies]

    if request.task in ("score", "explain"):
        slope = yield Query(x, level(read_at, x), nobody)
        note(slope)
        return heat(x, slope.gradient) if request.task == "explain" else x
    if request.task == "refine":
        note((yield Query(x, level(read_at, x), nobody)), "_before")
    y = torch.tensor(request.label, device=device) if request.label else nobody
    taken: list[Tensor] = []
    x = yield from request.setting.build(
        Streams(_set(request.seed), request.indices),
        x,
        y,
        energy=True,
        start=None if sent is None else x,
        keep=keep,
        see=see,
        accepted=taken.append,
    )
    if taken:
        notes["acceptance"] = [round(t, 4) for t in torch.stack(taken).float().mean(0).tolist()]
    note((yield Query(x, level(read_at, x), nobody)))
    return x


def _set(value: T | None) -> T:
    """Return what a resolved request has filled in."""
    assert value is not None
    return value
