"""Words: neighbours, analogies, and a map of them in the plane."""

from collections.abc import Collection, Sequence
from html import escape
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from genserve.gateway.page import controls, markup
from genserve.gateway.page.asking import Line, Refused, Visitor
from genserve.gateway.page.catalogue import Model, request_of
from genserve.gateway.page.context import Context
from genserve.serving.limits import SAMPLES_MAX

FAMILY = "words"
Box = tuple[float, float, float, float]  # left, top, right, bottom
WIDTH, HEIGHT, EDGE = 480, 330, 46  # of the map, in its own units
PRESETS: dict[str, tuple[str, str]] = {
    "Around river": ("nearest", "river"),
    "Three fields": ("nearest", "violin, enzyme, football"),
    "King less man plus woman": ("analogy", "man, king, woman"),
    "The odd one": ("odd", "apple, pear, plum, hammer"),
}
TASKS = ("nearest", "analogy", "odd")
LISTED = 8  # texts whose neighbours are listed
LETTER, LINE = 6.7, 14  # of the map: width of a letter, height of a line


class Words:
    """The part; `build` makes its components in the block that is open.

    Args:
        context: what the tabs share.
    """

    families = (FAMILY,)

    def __init__(self, context: Context) -> None:
        self._context = context

    def build(self) -> None:
        """Make the part."""
        kind = request_of(FAMILY)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                with gr.Row(elem_classes="presets"):
                    presets = [
                        (gr.Button(name, size="sm", min_width=110), both) for name, both in PRESETS.items()
                    ]
                self.model = controls.model_choice()
                task = gr.Radio(TASKS, value=TASKS[0], label="Task")
                text = gr.Textbox("river", label="Words", info="A comma is between two of them.", max_lines=2)
                count = controls.slider(kind, "top_k", "How many neighbours", 12, most=30, info="")
                start = gr.Button("Look", variant="primary", elem_id="words-start")
            with gr.Column(scale=3, min_width=300):
                self._status = gr.HTML(markup.status("Neighbours of words, and where they lie."))
                self._result = gr.HTML(markup.empty("A map of words stands here."), elem_id="words")
        self._form = controls.Form(model=self.model, task=task, text=text, top_k=count)
        outputs = [self._status, self._result, *self._form.components]
        gr.on([start.click, text.submit], self.look, self._form.components, outputs, show_progress="hidden")
        for button, both in presets:
            button.click(lambda both=both: both, None, [task, text], show_progress="hidden").then(
                self.look, self._form.components, outputs, show_progress="hidden"
            )

    async def look(self, request: gr.Request, *values: Any) -> controls.Updates:
        """Return neighbours and map of the words."""
        inputs = self._form.values(values)
        texts = [part.strip() for part in inputs["text"].split(",") if part.strip()]
        fields: dict[str, Any] = {"task": inputs["task"], "text": texts}
        if inputs["task"] != "odd":
            fields |= {"top_k": inputs["top_k"], "distinct": True}
        try:
            model = await self._context.catalogue.named(inputs["model"], FAMILY)
            visitor = self._context.visitor(request)
            rows = (await visitor.answer(model.name, fields))["texts"]
            plane = await self._map(visitor, model, groups_of(texts, rows))
        except Refused as refusal:
            return self._form.cleared() | self._form.refused(refusal, self._status)
        return self._form.cleared() | {
            self._status: markup.status(sentence(texts, rows)),
            self._result: f"{plane}<div class='lists'>{''.join(map(listed, rows[:LISTED]))}</div>",
        }

    async def _map(self, visitor: Visitor, model: Model, groups: dict[str, list[str]]) -> str:
        """Return the words of groups in the plane of their two widest directions."""
        names = list(dict.fromkeys(word for name, words in groups.items() for word in (name, *words)))
        names = names[:SAMPLES_MAX]
        rows = (await visitor.answer(model.name, {"task": "vector", "text": names}))["texts"]
        return word_map(names, groups.keys(), plane_of(np.array([row["vector"] for row in rows])))


def groups_of(texts: list[str], rows: list[Line]) -> dict[str, list[str]]:
    """Return the words that a client named, each with those that were found for it."""
    near = [[entry["word"] for entry in row.get("nearest", ())] for row in rows]
    if len(rows) < len(texts):  # of an analogy: one answer for three words
        return {text: [] for text in texts} | {texts[-1]: near[0]}
    return dict(zip(texts, near, strict=True))


def sentence(texts: list[str], rows: list[Line]) -> str:
    """Return what was found."""
    if odd := [row["text"] for row in rows if row.get("odd")]:
        return f"{odd[0]} fits the others least."
    if len(rows) < len(texts):
        a, b, c = texts
        return f"{b} is to {a} as {rows[0]['nearest'][0]['word']} is to {c}."
    return "; ".join(f"{row['text']}: {row['nearest'][0]['word']}" for row in rows[:LISTED]) + "."


def listed(row: Line) -> str:
    """Return what an answer says of a text, as bars."""
    if "fit" in row:
        return markup.bars([(row["text"], max(0.0, row["fit"]), f"{row['fit']:.2f}")])
    entries = [(e["word"], max(0.0, e["score"]), f"{e['score']:.2f}") for e in row["nearest"]]
    name = row["text"] if isinstance(row["text"], str) else ", ".join(row["text"])
    return f"<section><h3>{escape(name)}</h3>{markup.bars(entries)}</section>"


def plane_of(v: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return vectors (N, D) in the plane of their two widest directions, (N, 2), each axis from 0 to 1."""
    centred = v - v.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(v), 2))
    points[:, : min(2, len(axes))] = centred @ axes[:2].T
    width = np.ptp(points, axis=0)
    return np.asarray((points - points.min(0)) / np.where(width > 0, width, 1))


def word_map(names: Sequence[str], chosen: Collection[str], points: NDArray[np.float64]) -> str:
    """Return a map of words as SVG; those that were chosen stand out."""
    size = np.array([WIDTH - 2 * EDGE, HEIGHT - EDGE])
    places = points * size + [EDGE, EDGE / 2]
    taken: list[Box] = []
    marks = {}
    for name, (x, y) in sorted(zip(names, places, strict=True), key=lambda entry: entry[0] not in chosen):
        label = _free(name, x, y, taken)
        text = f"<text x='{label[0]:.0f}' y='{label[1]:.0f}'>{escape(name)}</text>" if label else ""
        kind = "chosen" if name in chosen else "near"
        marks[name] = (
            f"<g class='{kind}'><title>{escape(name)}</title>"
            f"<circle cx='{x:.0f}' cy='{y:.0f}' r='3'/>{text}</g>"
        )
    dots = "".join(marks[name] for name in reversed(marks))  # those that were chosen on top
    title = escape(f"Map of {', '.join(names)}", quote=True)
    return f"<svg class='map' viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{title}'>{dots}</svg>"


def _free(name: str, x: float, y: float, taken: list[Box]) -> tuple[float, float] | None:
    """Return the place of a label around a point where no other one is; None if there is none."""
    half = len(name) * LETTER / 2
    for dx, dy in ((0, -8), (0, LINE + 2), (half + 8, 5), (-half - 8, 5), (half, -LINE), (-half, -LINE)):
        box = (x + dx - half, y + dy - LINE + 4, x + dx + half, y + dy + 4)
        if not any(_overlap(box, other) for other in taken) and box[0] > 0 and box[2] < WIDTH:
            taken.append(box)
            return x + dx, y + dy
    return None


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
