"""A classifier: a drawing or an upload, bars of probabilities, and which pixels speak for a class."""

from typing import Any

import gradio as gr

from genserve.gateway.page import controls, markup, pad
from genserve.gateway.page.asking import Refused
from genserve.gateway.page.catalogue import request_of
from genserve.gateway.page.context import Context
from genserve.serving.fields import choices

FAMILY = "labels"
SHOWN = 240


class Labels:
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
                self.model = controls.model_choice()
                self._pad = pad.pad("Picture to classify", masks=False)
                invert = gr.Checkbox(label="Invert", info=controls.hint(kind, "invert"))
                method = gr.Radio(choices(kind, "method"), value="gradient", label="Heat map by")
                start = gr.Button("Classify", variant="primary", elem_id="labels-start")
            with gr.Column(scale=3, min_width=300):
                self._status = gr.HTML(markup.status("Draw or upload a picture."))
                self._result = gr.HTML(markup.empty("Bars of probabilities stand here."), elem_id="labels")
        self._form = controls.Form(model=self.model, invert=invert, method=method)
        outputs = [self._status, self._result, *self._form.components]
        start.click(self.classify, [self.model, self._pad, invert, method], outputs, show_progress="hidden")
        self.model.change(self.suited, self.model, self._pad, show_progress="hidden")

    async def suited(self, name: str) -> Any:
        """Return the pad of a model's size."""
        try:
            return pad.fitted(await self._context.catalogue.named(name, FAMILY))
        except Refused:
            return gr.skip()

    async def classify(
        self, request: gr.Request, name: str, value: str, invert: bool, method: str
    ) -> controls.Updates:
        """Return classes and heat map of the picture."""
        try:
            model = await self._context.catalogue.named(name, FAMILY)
            picture, _ = pad.sent(model, value)
            fields: dict[str, Any] = {"images": picture} | ({"invert": True} if invert else {})
            visitor = self._context.visitor(request)
            named = await visitor.answer(model.name, fields | {"top_k": len(model.classes)})
            heat = {"task": "explain", "method": method, "format": "json"}
            explained = await visitor.answer(model.name, fields | heat)
        except Refused as refusal:
            return self._form.cleared() | self._form.refused(refusal, self._status)
        row = named["images"][0]
        width = model.shape[2]
        figures = [
            (picture, "your picture"),
            (explained["images"][0]["png"], f"what speaks for {row['label']}"),
        ]
        return self._form.cleared() | {
            self._status: markup.status(f"{row['label']}, with probability {row['probability']:.1%}."),
            self._result: bars(row["top"]) + markup.side_by_side(figures, width, SHOWN),
        }


def bars(rows: list[dict[str, Any]]) -> str:
    """Return probabilities of classes as bars."""
    return markup.bars([(row["label"], row["probability"], f"{row['probability']:.1%}") for row in rows])
