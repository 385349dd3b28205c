"""The tab Energy: what an energy makes of a picture: energy and rank, a heat map, and better pictures."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import gradio as gr

from genserve.gateway.page import controls, markup, pad
from genserve.gateway.page.asking import Line, Refused
from genserve.gateway.page.catalogue import Model, request_of
from genserve.gateway.page.context import Context

FAMILY = "energy"
FRAMES = 16  # of what is watched
SHOWN = 280  # pixels of a screen that a picture may be wide
LEGEND = "Red pixels are brighter than the model wants them, blue ones darker."


class Energy:
    """The tab; `build` makes its components in the block that is open.

    Args:
        context: what the tabs share.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    @property
    def models(self) -> list[tuple[gr.Dropdown, tuple[str, ...]]]:
        """The choice of a model, and its families."""
        return [(self.model, (FAMILY,))]

    def build(self) -> None:
        """Make the tab."""
        kind = request_of(FAMILY)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                self.model = controls.model_choice()
                self._pad = pad.pad("Picture", masks=True)
                with gr.Row(elem_classes="actions"):
                    score = gr.Button("Judge", variant="primary", elem_id="energy-score")
                    refine = gr.Button("Refine", elem_id="energy-refine")
                    fill = gr.Button("Fill", elem_id="energy-fill")
                    restore = gr.Button("Denoise", elem_id="energy-restore")
                with gr.Row():
                    label = controls.label_choice(each=False)
                    steps = controls.slider(kind, "steps", "Steps", 25, info="", most=200)
                with gr.Row(elem_classes="presets"):
                    another = gr.Button("Draw me one", size="sm", min_width=120)
                    keep = gr.Button("Put the result on the pad", size="sm", min_width=160)
                    stop = gr.Button("Stop", size="sm", min_width=80, elem_id="energy-stop")
            with gr.Column(scale=3, min_width=300):
                self._status = gr.HTML(markup.status("Draw a digit and let the energy judge it."))
                self._result = gr.HTML(
                    markup.empty("Energy, rank and a heat map stand here."), elem_id="energy-result"
                )
        self._last = gr.State("")
        self._form = controls.Form(model=self.model, images=self._pad, label=label, steps=steps)
        inputs = [self.model, self._pad, label, steps]
        outputs = [self._status, self._result, self._last, self.model, label, steps]
        runs: list[Any] = [
            button.click(action, inputs, outputs, show_progress="hidden")
            for button, action in (
                (score, self.score), (refine, self.refine), (fill, self.fill), (restore, self.restore)
            )
        ]  # fmt: skip
        stop.click(
            lambda: markup.status("Stopped."), None, self._status, cancels=runs, show_progress="hidden"
        )
        another.click(self.another, [self.model, label], [self._pad, self._status], show_progress="hidden")
        keep.click(self.keep, [self.model, self._last], [self._pad, self._status], show_progress="hidden")
        self.model.change(self.suited, [self.model, label], [self._pad, label], show_progress="hidden")

    async def suited(self, name: str, label: str) -> list[Any]:
        """Return pad and class as a model has them."""
        try:
            model = await self._context.catalogue.named(name, FAMILY)
        except Refused:
            return [gr.skip()] * 2
        return [pad.fitted(model), controls.labels_update(model, label, each=False)]

    async def another(self, request: gr.Request, name: str, label: str) -> tuple[Any, Any]:
        """Return a picture that the model draws, for the pad."""
        try:
            model = await self._context.catalogue.named(name, FAMILY)
            fields = controls.label_fields(label, model.classes, 1) | {"format": "json"}
            drawn = await self._context.visitor(request).answer(model.name, fields)
        except Refused as refusal:
            return gr.skip(), markup.alert(refusal.sentence)
        return pad.shown(model, drawn["images"][0]["png"]), markup.status("Drawn by the model.")

    async def keep(self, name: str, png: str) -> tuple[Any, Any]:
        """Return the last result, for the pad."""
        if not png:
            return gr.skip(), markup.alert("No result yet: refine, fill or restore a picture first.")
        try:
            return pad.shown(await self._context.catalogue.named(name, FAMILY), png), gr.skip()
        except Refused as refusal:
            return gr.skip(), markup.alert(refusal.sentence)

    async def score(
        self, request: gr.Request, name: str, value: str, label: str, steps: int
    ) -> AsyncGenerator[controls.Updates, None]:
        """Yield energy, rank and heat map of the picture."""
        yield self._begun()
        try:
            model = await self._context.catalogue.named(name, FAMILY)
            picture, _ = pad.sent(model, value)
            fields = {"images": picture}
            visitor = self._context.visitor(request)
            score = await visitor.answer(model.name, fields)
            heat = await visitor.answer(model.name, fields | {"format": "json"}, explain=True)
        except Refused as refusal:
            yield self._form.refused(refusal, self._status)
            return
        row = score["images"][0]
        pictures = [(picture, "your picture"), (heat["images"][0]["png"], "heat map")]
        yield {
            self._result: markup.side_by_side(pictures, model.shape[2], SHOWN)
            + f"<p class='caption'>{LEGEND}</p>"
            + gauge(row),
            self._status: markup.status(verdict(row)),
        }

    async def refine(self, request: gr.Request, *inputs: Any) -> AsyncGenerator[controls.Updates, None]:
        """Yield the picture on its walk downhill."""
        async with aclosing(self._walk(request, "refine", False, *inputs)) as updates:
            async for update in updates:
                yield update

    async def fill(self, request: gr.Request, *inputs: Any) -> AsyncGenerator[controls.Updates, None]:
        """Yield the picture while what is marked is filled."""
        async with aclosing(self._walk(request, "restore", True, *inputs)) as updates:
            async for update in updates:
                yield update

    async def restore(self, request: gr.Request, *inputs: Any) -> AsyncGenerator[controls.Updates, None]:
        """Yield the picture while noise is taken away."""
        async with aclosing(self._walk(request, "restore", False, *inputs)) as updates:
            async for update in updates:
                yield update

    async def _walk(
        self, request: gr.Request, task: str, masked: bool, name: str, value: str, label: str, steps: int
    ) -> AsyncGenerator[controls.Updates, None]:
        yield self._begun()
        try:
            model = await self._context.catalogue.named(name, FAMILY)
            picture, mask = pad.sent(model, value)
            fields: dict[str, Any] = {"task": task, "images": picture, "steps": steps, "frames": FRAMES}
            if label not in (controls.ANY, controls.EACH):
                fields["label"] = label
            if masked:
                if mask is None:
                    raise Refused("Nothing is marked: choose 'Mark what is filled' and paint over a part.")
                fields["mask"] = mask
            async with aclosing(self._context.visitor(request).lines(model.name, fields)) as stream:
                async for line in stream:
                    yield self._step(model, picture, line)
        except Refused as refusal:
            yield self._form.refused(refusal, self._status)

    def _step(self, model: Model, picture: str, line: Line) -> controls.Updates:
        finished = "images" in line
        pictures = [(picture, "before"), (line["preview"], "after" if finished else f"step {line['step']}")]
        result = markup.side_by_side(pictures, model.shape[2], SHOWN)
        if not finished:
            return {self._result: result, self._status: markup.status(f"Step {line['step']} ...")}
        row = line["images"][0]
        before = "energy_before" in row
        result += (
            gauge({name: row[f"{name}_before"] for name in ("energy", "rank")}, "Before") if before else ""
        )
        result += gauge(row, "After" if before else "Energy")
        return {
            self._result: result,
            self._status: markup.status(verdict(row)),
            self._last: row["png"],
        }

    def _begun(self) -> controls.Updates:
        cleared = self._form.cleared()
        del cleared[self._pad]
        return cleared | {self._status: markup.status("Asking the server ...")}


def verdict(row: Line) -> str:
    """Return what an energy and its rank say of a picture."""
    rank = row["rank"]
    if rank is None:
        return f"Energy {row['energy']:.2f}; this model has no energies of training images to compare with."
    if rank >= 1:
        return f"Energy {row['energy']:.2f}: more than any training image has."
    return f"Energy {row['energy']:.2f}: {rank:.0%} of the training images have less."


def gauge(row: Line, name: str = "Energy") -> str:
    """Return a bar of the rank of an energy among those of training images."""
    rank = row["rank"]
    if rank is None:
        return markup.facts({name: f"{row['energy']:.2f}"})
    return (
        f"<div class='gauge'><span>{name} {row['energy']:.2f}</span>"
        f"<meter min='0' max='1' high='0.95' optimum='0' value='{rank}' aria-label='{name}: rank'></meter>"
        f"<span>rank {rank:.3f}</span></div>"
    )
