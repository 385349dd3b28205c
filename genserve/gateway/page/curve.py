"""A curve of a few numbers as SVG, for the loss of a run."""

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 640, 200  # in the curve's own units
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 12, 30  # margins
TICKS = 4  # of an axis, about
Point = tuple[float, float]


def curve(points: Sequence[Point], x_name: str, y_name: str) -> str:
    """Return a curve, with its axes, of which that of x begins at 0; nothing of no points.

    Args:
        points: with x rising, above 0.
        x_name, y_name: of the axes.
    """
    if not points:
        return ""
    xs, ys = zip(*points, strict=True)
    low, high = min(ys), max(ys)
    if low == high:
        low, high = low - abs(low) / 10 - 1e-9, high + abs(high) / 10 + 1e-9
    last = xs[-1]

    def place(x: float, y: float) -> Point:
        across = LEFT + x / last * (WIDTH - LEFT - RIGHT)
        return across, TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM)

    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
    end = place(*points[-1])
    rows = "".join(_row(place(last, y)[1], y) for y in ticks(low, high))
    columns = "".join(
        f"<text x='{place(x, low)[0]:.1f}' y='{HEIGHT - BOTTOM + 18}' text-anchor='middle'>{x:g}</text>"
        for x in ticks(0.0, last)
    )
    label = f"{y_name}: {ys[0]:.4g} at {x_name} {xs[0]:g}, {ys[-1]:.4g} at {x_name} {xs[-1]:g}"
    return (
        f"<figure class='curve'><figcaption>{escape(y_name)} over {escape(x_name)}s</figcaption>"
        f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{escape(label, quote=True)}'>"
        f"{rows}{columns}<polyline points='{line}'/><circle cx='{end[0]:.1f}' cy='{end[1]:.1f}' r='4'/>"
        "</svg></figure>"
    )


def ticks(low: float, high: float) -> list[float]:
    """Return round numbers between two, evenly spaced."""
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 2.5, 5, 10) if size * power >= rough)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _row(y: float, value: float) -> str:
    return (
        f"<line x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{y:.1f}' y2='{y:.1f}'/>"
        f"<text x='{LEFT - 8}' y='{y + 4:.1f}' text-anchor='end'>{value:.4g}</text>"
    )
