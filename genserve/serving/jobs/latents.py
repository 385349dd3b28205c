"""What a model is asked that draws in one evaluation: the tasks as a table, and each as a sampler."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from genserve.runs.contracts.latents import Bounded, Encoded, Latent, LatentSpec
from genserve.sampling.engine import Sampler
from genserve.sampling.latent import Change
from genserve.sampling.noise import Streams
from genserve.serving.orders import Notes, Order

Begin = Callable[..., Sampler]  # as PictureRequest.begin


@dataclass(frozen=True, kw_only=True)
class Task:
    """A row of the table.

    Args:
        summary: a line for help and docs.
        pictures: it wants pictures.
        pictured: it answers with pictures, else with numbers.
        draws: it draws at random, from a seed.
        evaluations: of each picture.
    """

    summary: str
    pictures: bool = True
    pictured: bool = True
    draws: bool = False
    evaluations: int = 1


TASKS = {
    "sample": Task(summary="draws, and is usual", pictures=False, draws=True),
    "reconstruct": Task(
        summary="pictures as they come back through the bottleneck; usual with pictures sent along",
        evaluations=2,
    ),
    "walk": Task(summary="`num_samples` pictures on the way from one to another, in the prior's noise"),
    "encode": Task(summary="mean, ln variance and prior noise of pictures", pictured=False),
    "bound": Task(
        summary="a bound of the log-likelihood of pictures, in nats and bits", pictured=False, draws=True
    ),
}


@dataclass(frozen=True)
class Look:
    """What is done with pictures that are sent.

    Args:
        task: one of TASKS.
        label: the class of each; None to take the one that makes it likeliest.
        draws: z of the posterior that a bound is the mean of.
    """

    task: str
    label: tuple[int, ...] | None
    draws: int = 1


def drawing(change: Change, number: float) -> Begin:
    """Return what begins to draw pictures, from noise that is changed by a number."""

    def begin(
        order: Order, _: None, spec: LatentSpec, device: torch.device, __: None, notes: Notes
    ) -> Sampler:
        if order.seed_to is not None:
            notes["t"] = [round(k / (order.n - 1), 4) for k in range(order.n)]
        z = change(order.noise()(torch.empty(order.n, spec.z_dim)), number)
        y = torch.tensor(order.label or [0] * order.n)
        x: Tensor = yield Latent(z.to(device), y.to(device))
        return x

    return begin


def looking(look: Look) -> Begin:
    """Return what begins to look at pictures: each gets its class, and then its task."""

    def begin(
        order: Order, _: None, spec: LatentSpec, device: torch.device, __: None, notes: Notes
    ) -> Sampler:
        assert order.pictures is not None
        x = order.pictures.to(device)
        if look.label is None and spec.classes:
            y = yield from likeliest(x, len(spec.classes), spec.z_dim)
            if look.task != "walk":
                notes["label"] = y.tolist()
        else:
            y = torch.tensor(look.label or [0] * len(x), device=device)
        match look.task:
            case "bound":
                yield from _bound(x, y, order, look.draws, spec.z_dim, notes)
                return x
            case "encode":
                encoded = yield Encoded(x, y)
                for name, values in zip(("mean", "log_variance", "noise"), encoded, strict=True):
                    notes[name] = [[round(v, 5) for v in row] for row in values.tolist()]
                return x
            case "walk":
                notes["t"] = [round(k / (order.n - 1), 4) for k in range(order.n)]
                _, _, noise = yield Encoded(x, y)
                t = torch.linspace(0, 1, order.n, device=device)
                nearest = (t > 0.5).long()  # a class has nothing between it and another
                drawn = yield Latent(on_the_arc(noise[0], noise[1], t), y[nearest])
                return drawn
        _, _, noise = yield Encoded(x, y)
        drawn = yield Latent(noise, y)
        return drawn

    return begin


def likeliest(x: Tensor, n_classes: int, z_dim: int) -> Sampler:
    """Return the class of each picture whose bound is best, (B,), read at the mean of its posterior."""
    rows = x.repeat_interleave(n_classes, dim=0)
    y = torch.arange(n_classes, device=x.device).repeat(len(x))
    reconstruction, kl = yield Bounded(rows, y, x.new_zeros(len(rows), z_dim))
    return (reconstruction + kl).view(len(x), n_classes).argmin(1)


def on_the_arc(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Return points from a (D,) to b (D,) at t (n,), 0 to 1, whose lengths go evenly from one to the other.

    Source: Shoemake 1985, "Animating rotation with quaternion curves", section 3.3, for the directions.
    """
    length_a, length_b = a.norm(), b.norm()
    cosine = (a @ b / (length_a * length_b).clamp_min(1e-12)).clamp(-1, 1)
    angle = torch.acos(cosine)
    # one direction, or none between the two, or none at all
    if angle < 1e-3 or angle > math.pi - 1e-3 or not length_a or not length_b:
        return torch.lerp(a, b, t[:, None])
    of_a, of_b = torch.sin((1 - t) * angle)[:, None], torch.sin(t * angle)[:, None]
    direction = (of_a * a / length_a + of_b * b / length_b) / torch.sin(angle)
    points: Tensor = direction * torch.lerp(length_a, length_b, t)[:, None]
    return points


def _bound(x: Tensor, y: Tensor, order: Order, draws: int, z_dim: int, notes: Notes) -> Sampler:
    """Note the bound of each picture, over draws of z.

    Source: Kingma & Welling 2014 (arXiv:1312.6114), eq. (3); its importance-weighted sister, Burda et al.
    2016 (arXiv:1509.00519), eq. (8).
    """
    noise = Streams(order.seed or 0, order.indices)
    eps = torch.cat([noise(torch.empty(len(x), z_dim)) for _ in range(draws)]).to(x.device)
    answer = yield Bounded(x.repeat(draws, 1, 1, 1), y.repeat(draws), eps)
    reconstruction, kl = (part.double().view(draws, -1) for part in answer)
    nats = reconstruction + kl
    values = {"bound": nats.mean(0), "reconstruction": reconstruction.mean(0), "kl": kl.mean(0)}
    if draws > 1:
        values["importance_weighted"] = math.log(draws) - torch.logsumexp(-nats, 0)
    values["bits_per_dim"] = values["bound"] / math.log(2) / x[0].numel()
    for name, value in values.items():
        notes[name] = [round(v, 4) for v in value.tolist()]
