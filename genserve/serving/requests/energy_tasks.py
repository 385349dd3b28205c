"""What an energy is asked for: the tasks as a table, and each as a sampler."""

from dataclasses import dataclass

import torch
from torch import Tensor

from genserve.images import heat
from genserve.runs.contract import Spec, Walk
from genserve.sampling.langevin import Slope
from genserve.sampling.samplers import Query, Sampler, See, level
from genserve.sampling.settings import Setting
from genserve.serving.orders import Notes, Order


@dataclass(frozen=True, kw_only=True)
class Task:
    """A row of the table.

    Args:
        summary: a line for help and docs.
        pictures: it wants pictures.
        draws: it takes steps, by a setting.
        reads: its `sigma` is the level at which pictures are read; else energies are read at the model's own.
        readings: evaluations beside those of the steps.
        formats: of its answer; none means every format.
        why: it has no other formats.
    """

    summary: str
    pictures: bool = True
    draws: bool = True
    reads: bool = True
    readings: int = 1
    formats: tuple[str, ...] = ()
    why: str = ""


TASKS = {
    "sample": Task(summary="draws, and is usual", pictures=False, reads=False),
    "score": Task(
        summary="the energies and ranks of pictures; usual with pictures sent along",
        draws=False, formats=("json",), why="a score is numbers",
    ),
    "refine": Task(summary="walks downhill from pictures", readings=2),
    "restore": Task(summary="fills what a mask leaves out, or takes noise away", reads=False),
    "explain": Task(
        summary="the gradient of the energy at every pixel",
        draws=False, formats=("png", "json", "npy", "zip"), why="a heat map stands still",
    ),
}  # fmt: skip


def answering(
    order: Order,
    setting: Setting | None,
    spec: Spec,
    device: torch.device,
    see: See | None,
    notes: Notes,
) -> Sampler:
    """Return the sampler of an order, which reads the energy where it ends; arguments as `Request.begin`.

    Energies are read without a class, so that they compare with each other and with the training images'.
    They go into notes, with their ranks.
    """
    walk, task = walk_of(spec), TASKS[order.task]
    no_class = torch.full((order.n,), spec.no_class, device=device)
    sigma = order.sigma if task.reads and order.sigma is not None else walk.read_sigma
    sent = None if order.pictures is None else order.pictures.to(device)
    x = torch.empty(order.n, *spec.shape, device=device) if sent is None else sent

    def note(slope: Slope, when: str = "") -> None:
        energies = [round(e, 4) for e in slope.energy.tolist()]
        notes[f"energy{when}"] = energies
        if walk.energies and sigma == walk.read_sigma:  # the training images were read like that
            notes[f"rank{when}"] = [walk.rank(e) for e in energies]

    if setting is None:
        slope = yield Query(x, level(sigma, x), no_class)
        note(slope)
        return heat(x, slope.gradient) if order.task == "explain" else x
    if task.readings == 2:
        note((yield Query(x, level(sigma, x), no_class)), "_before")
    y = no_class if order.label is None else torch.tensor(order.label, device=device)
    accepted: list[Tensor] = []
    x = yield from setting.build(
        order.noise(),
        x,
        y,
        energy=True,
        start=sent,
        keep=order.keep,
        see=see,
        accepted=accepted.append,
    )
    if accepted:
        notes["acceptance"] = [round(t, 4) for t in torch.stack(accepted).float().mean(0).tolist()]
    note((yield Query(x, level(sigma, x), no_class)))
    return x


def walk_of(spec: Spec) -> Walk:
    """Return how an energy is walked on.

    Raises:
        ValueError: the model is no energy.
    """
    if spec.walk is None:
        raise ValueError(f"{spec.name} is no energy")
    return spec.walk
