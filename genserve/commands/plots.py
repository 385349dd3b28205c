"""What the figures of `genserve figures` share: colours, a sheet of pictures, empty axes, a landscape."""

from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from torch import nn

from genserve import images
from genserve.drawing.trajectory import caption, moments, plane, shown, slopes
from genserve.images import normalise
from genserve.sampling.samplers import Query

COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "black",
)  # Okabe & Ito: every eye tells them apart
DPI = 150
STYLE: dict[Any, Any] = {"font.size": 11, "axes.titlesize": 11, "lines.linewidth": 2}
STYLE |= {"axes.spines.top": False, "axes.spines.right": False}


def sheet(pixels: images.Pixels, captions: list[str]) -> Figure:
    """Return rows of pictures, (R, K, H, W, C), enlarged and not resampled, a caption above each column."""
    k, h, w = pixels.shape[1:4]
    scale = max(1, round(112 / h))
    grid = images.enlarge(images.grid(pixels.reshape(-1, *pixels.shape[2:]), k), scale)
    height, width, top = grid.shape[0], grid.shape[1], 40 if captions else 0
    fig = Figure((width / DPI, (height + top) / DPI), dpi=DPI)
    fig.figimage(np.broadcast_to(grid, (height, width, 3)), origin="upper")
    for column, text in enumerate(captions):
        x = (column * (w + images.GAP) + w / 2) * scale / width
        fig.text(x, 1 - top / 2 / (height + top), text, ha="center", va="center")
    return fig


def plot(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """Return an empty figure and its axes."""
    fig = Figure((6.4, 4.0), dpi=DPI, layout="constrained")
    ax = fig.subplots()
    ax.set(xlabel=xlabel, ylabel=ylabel)
    return fig, ax


class Chains(NamedTuple):
    """Where the chains of an energy went."""

    energy: nn.Module  # (x, sigma, y) -> (B,)
    n_classes: int
    plain: bool  # it knows no noise levels
    looks: list[Query]
    ends: images.Pixels  # (B, H, W, C)


def landscape(chains: Chains) -> Figure:
    """Three chains: planes through the first one, its pictures, the energies and gradients of all."""
    pixels, looks = chains.ends, chains.looks
    heights = [1.2, 2.3] if chains.plain else [2.15, 1.2, 2.3]
    fig = Figure((8, 1.25 * sum(heights)), dpi=DPI, layout="constrained")
    parts: Any = fig.subfigures(len(heights), 1, height_ratios=heights)
    *top, middle, bottom = parts
    for part in top:
        for ax, k in zip(part.subplots(1, 4), moments(looks, 5)[1:], strict=False):
            draw_plane(ax, chains, k)
    picked = moments(looks, 7)
    film = {caption(looks, k): shown(looks, k)[0] for k in picked} | {"image": pixels[0]}
    for ax, (title, picture) in zip(middle.subplots(1, len(film)), film.items(), strict=True):
        ax.imshow(images.picture(picture), cmap="gray", vmin=0, vmax=255)
        ax.set_title(title)
        ax.axis("off")
    left, right = bottom.subplots(1, 2)
    for ax, values in zip((left, right), slopes(chains.energy, looks), strict=True):
        for energies, colour in zip(values.T.numpy(), COLOURS, strict=False):
            ax.plot(energies, color=colour)
        ax.plot(picked, values[picked, 0].numpy(), "o", color=COLOURS[0])
        ax.set(xlabel="step", xscale="symlog" if chains.plain else "linear")
    left.set(ylabel="energy")
    right.set(ylabel="|gradient|", yscale="log")
    return fig


def draw_plane(ax: Axes, chains: Chains, k: int) -> None:
    """Draw energies around look k, the chain above them, and the ends beside their places."""
    looks, ends = chains.looks, chains.ends
    x = normalise(torch.from_numpy(ends).permute(0, 3, 1, 2))
    cut = plane(chains.energy, looks, k, x, chains.n_classes)
    u, v, energy, path, corners = (part.numpy() for part in cut)
    heights = np.linspace(energy.min(), np.quantile(energy, 0.9), 24)
    ax.contourf(u, v, energy, heights, extend="max", cmap="magma")
    ax.plot(*path.T, color="white", lw=1)
    ax.plot(*path[-1], "o", color=COLOURS[0], mec="white", ms=7)
    middle = np.array([u.mean(), v.mean()])
    for corner, picture, colour in zip(corners, ends, COLOURS, strict=False):
        gray = np.asarray(images.picture(picture).convert("RGB").resize((26, 26)))
        place = (middle + 1.42 * (corner - middle)).tolist()
        frame = {"edgecolor": colour, "linewidth": 2}
        ax.add_artist(AnnotationBbox(OffsetImage(gray, zoom=0.5), place, pad=0, bboxprops=frame))
    ax.set(xlim=u[[0, -1]], ylim=v[[0, -1]], xticks=[], yticks=[], aspect="equal")
    ax.set_title(caption(looks, k))
    ax.spines[:].set_visible(False)
