"""The samplers by name: what each is, what it costs, and which models take it.

A new sampler is one generator, one row here and one oracle test: allowed values, help and docs follow.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from genserve.sampling.langevin import annealed, langevin, mala
from genserve.sampling.noise import Noise
from genserve.sampling.samplers import Sampler, consistency, ddim, ddpm, dpmpp_2m, heun


def _one_per_step(n: int) -> int:
    return n


@dataclass(frozen=True, kw_only=True)
class Solver:
    """A row of the tables below.

    Args:
        generator: the sampler.
        summary: a line for help and docs.
        evaluations: returns the network evaluations of n steps, without guidance.
        takes_eta: it has an argument eta, the share of fresh noise.
        draws_noise: it has an argument noise.
        slopes: it is sent an energy's Slope, so only an energy takes it.
    """

    generator: Callable[..., Sampler]
    summary: str
    evaluations: Callable[[int], int] = _one_per_step
    takes_eta: bool = False
    draws_noise: bool = True
    slopes: bool = False


# from level to level
SOLVERS = {
    "langevin": Solver(
        generator=annealed,
        summary="Langevin dynamics, annealed over several noise levels or at one",
        evaluations=lambda n: n + 1,
        slopes=True,
    ),
    "ddim": Solver(
        generator=ddim, summary="first order; eta 0 is deterministic, 1 is DDPM with its large variance",
        takes_eta=True,
    ),
    "ddpm": Solver(generator=ddpm, summary="ancestral sampling with its own variance"),
    "heun": Solver(
        generator=heun, summary="second order, two evaluations per step", evaluations=lambda n: 2 * n - 1,
        draws_noise=False,
    ),
    "dpmpp_2m": Solver(
        generator=dpmpp_2m, summary="second order, one evaluation per step; eta 1 solves the reverse SDE",
        takes_eta=True,
    ),
    "consistency": Solver(
        generator=consistency, summary="for models that were distilled to few evaluations"
    ),
}  # fmt: skip

# at one noise level, of an energy
WALKS = {
    "langevin": Solver(generator=langevin, summary="unadjusted Langevin dynamics", slopes=True),
    "mala": Solver(
        generator=mala,
        summary="Metropolis-adjusted Langevin, at one noise level",
        evaluations=lambda n: n + 1,
        slopes=True,
    ),
}

# of denoisers; an energy takes them as well
SAMPLERS = tuple(name for name, solver in SOLVERS.items() if not solver.slopes)
TAKE_ETA = tuple(name for name, solver in SOLVERS.items() if solver.takes_eta)


def sampler_named(
    name: str, x_t: Tensor, sigmas: Tensor, y: Tensor, *, eta: float = 0.0, noise: Noise
) -> Sampler:
    """Return a sampler of x_0 by its name; eta is for those in TAKE_ETA.

    Raises:
        ValueError: the name is not in SAMPLERS.
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, got {name!r}")
    solver = SOLVERS[name]
    arguments: dict[str, Any] = {"noise": noise} if solver.draws_noise else {}
    if solver.takes_eta:
        arguments["eta"] = eta
    return solver.generator(x_t, sigmas, y, **arguments)
