"""A film: the frames of one drawing or of several, turned together by a slider."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from genserve.gateway.page import markup

THUMB = 44  # pixels of a thumbnail


@dataclass(frozen=True)
class Frame:
    """A moment of a film.

    Args:
        pictures: PNGs in base64, each with what it is; they stand side by side.
        caption: of the moment.
    """

    pictures: Sequence[tuple[str, str]]
    caption: str


@dataclass
class Reel:
    """The frames of one drawing.

    Args:
        title: of the drawing.
        width: of a picture, in its own pixels.
        note: what stands below, as HTML.
    """

    title: str
    width: int
    frames: list[Frame] = field(default_factory=list)
    note: str = ""


def film(reels: Sequence[Reel], shown: int, title: str = "From noise to picture") -> str:
    """Return the HTML of reels side by side, with one slider over the frames of all, at the last ones.

    Args:
        shown: pixels of the screen that a picture may be wide.
        title: of the slider.
    """
    last = max(1, *(len(reel.frames) - 1 for reel in reels))
    body = "".join(_reel(reel, shown) for reel in reels)
    return (
        f"<div class='film' data-last='{last}'><label class='turn'><span>{escape(title)}</span>"
        f"<input type='range' min='0' max='{last}' value='{last}'></label>"
        f"<div class='reels'>{body}</div></div>"
    )


def _reel(reel: Reel, shown: int) -> str:
    end = len(reel.frames) - 1
    frames = "".join(_frame(frame, reel.width, shown, k != end) for k, frame in enumerate(reel.frames))
    thumbs = "".join(
        f"<button type='button' data-frame='{k}' aria-pressed='{'true' if k == end else 'false'}' "
        f"aria-label='{escape(frame.caption, quote=True)}'>"
        f"{markup.picture(frame.pictures[0][0], '', reel.width, THUMB)}</button>"
        for k, frame in enumerate(reel.frames)
    )
    return (
        f"<section class='reel' aria-label='{escape(reel.title, quote=True)}'><h3>{escape(reel.title)}</h3>"
        f"{frames}<div class='strip'>{thumbs}</div>{reel.note}</section>"
    )


def _frame(frame: Frame, width: int, shown: int, hidden: bool) -> str:
    pictures = "".join(
        f"<figure>{markup.picture(png, f'{name}, {frame.caption}', width, shown)}"
        f"<figcaption>{name}</figcaption></figure>"
        for png, name in frame.pictures
    )
    return (
        f"<div class='frame'{' hidden' if hidden else ''}><div class='pair'>{pictures}</div>"
        f"<p class='caption'>{escape(frame.caption)}</p></div>"
    )
