"""The tab Draw: a grid that appears step by step, and the line of curl that gives the same."""

import asyncio
import base64
import math
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import gradio as gr

from genserve import images
from genserve.gateway.page import controls, markup, settings
from genserve.gateway.page.asking import Line, Refused
from genserve.gateway.page.catalogue import Model, request_of
from genserve.gateway.page.context import Context
from genserve.serving.limits import PIXELS_MAX

FRAMES = 24  # of what is watched

# what is worth seeing: a name, and the inputs that it sets
PRESETS: dict[str, dict[str, Any]] = {
    "Each class in turn": {"label": controls.EACH, "num_samples": 20},
    "One class, guided": {"label": 3, "num_samples": 16, "guidance": 3.0},
    "Slowly, to watch": {"num_samples": 9, "sampler": "ddpm", "steps": 150},
    "In four steps": {"num_samples": 16, "steps": 4},
}


class Draw:
    """The tab; `build` makes its components in the block that is open.

    Args:
        context: what the tabs share.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    @property
    def models(self) -> list[tuple[gr.Dropdown, tuple[str, ...]]]:
        """The choice of a model, and its families."""
        return [(self.model, settings.FAMILIES)]

    def build(self) -> None:
        """Make the tab."""
        kind = request_of(settings.USUAL)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                with gr.Row(elem_classes="presets"):
                    presets = [(controls.preset(name), v) for name, v in PRESETS.items()]
                with gr.Row():
                    self.model = controls.model_choice()
                    label = controls.label_choice()
                with gr.Row():
                    count = controls.slider(kind, "num_samples", "How many", 16, info="")
                    seed = controls.seed()
                own = settings.inputs()
                with gr.Row(elem_classes="actions"):
                    start = gr.Button("Draw", variant="primary", elem_id="draw-start")
                    stop = gr.Button("Stop", elem_id="draw-stop")
            with gr.Column(scale=3, min_width=300):
                self.status = gr.HTML(markup.status("Press Draw: the pictures appear step by step."))
                self.result = gr.HTML(markup.empty("Noise turns into pictures here."), elem_id="draw-result")
        self.form = controls.Form(model=self.model, label=label, num_samples=count, seed=seed, **own)
        outputs = [self.status, self.result, *self.form.components]
        run = start.click(self.draw, self.form.components, outputs, show_progress="hidden")
        stop.click(lambda: markup.status("Stopped. The server has let the request go."), None, self.status,
                   cancels=[run], show_progress="hidden")  # fmt: skip
        changed = [label, *own.values()]
        self.model.change(self.suited, [self.model, label], changed, show_progress="hidden")
        for button, values in presets:
            button.click(self._set(values), self.model, [*changed, count], show_progress="hidden").then(
                self.draw, self.form.components, outputs, show_progress="hidden"
            )

    def _set(self, values: dict[str, Any]) -> Any:
        """Return what sets the inputs to a preset: what it does not name, to the model's own."""

        async def changed(name: str) -> list[Any]:
            try:
                model = await self._context.catalogue.named(name, *settings.FAMILIES)
            except Refused:
                return [gr.skip()] * (2 + len(settings.NAMES))
            label = values.get("label", controls.ANY)
            if not model.classes:
                label = controls.ANY
            elif isinstance(label, int):
                label = model.classes[label % len(model.classes)]
            both = settings.own(model) | values
            return [label, *(both[name] for name in settings.NAMES), values["num_samples"]]

        return changed

    async def suited(self, name: str, label: str) -> list[Any]:
        """Return class, sampler, steps, eta and guidance as a model has them."""
        try:
            model = await self._context.catalogue.named(name, *settings.FAMILIES)
        except Refused:
            return [gr.skip()] * (1 + len(settings.NAMES))
        return [controls.labels_update(model, label), *settings.updates(model)]

    async def draw(self, request: gr.Request, *values: Any) -> AsyncGenerator[controls.Updates, None]:
        """Yield what the page shows while pictures are drawn."""
        inputs = self.form.values(values)
        yield self.form.cleared() | {self.status: markup.status("Asking the server ...")}
        try:
            model = await self._context.catalogue.named(inputs["model"], *settings.FAMILIES)
            fields = request_fields(model, inputs)
            watched: list[Line] = []
            async with aclosing(
                self._context.visitor(request).lines(model.name, fields | {"frames": FRAMES})
            ) as stream:
                async for line in stream:
                    watched.append(line)
                    if "images" not in line:
                        yield {self.result: _grid(model, line), self.status: markup.status(_progress(line))}
            last = watched[-1]
            address = self._context.address(request, model.name)
            after = await asyncio.to_thread(finished, model, fields, watched, address, self._context.token)
            yield {self.result: _grid(model, last) + after, self.status: markup.status(_summary(last))}
        except Refused as refusal:
            yield self.form.refused(refusal, self.status)


def request_fields(model: Model, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a request for what the inputs hold."""
    fields = controls.label_fields(inputs["label"], model.classes, inputs["num_samples"])
    seed = controls.seed_of(model.request, inputs["seed"])
    return ({} if seed is None else {"seed": seed}) | fields | settings.given(model, inputs)


def finished(model: Model, fields: dict[str, Any], watched: list[Line], address: str, token: bool) -> str:
    """Return what stands below a finished grid: facts, downloads, the line of curl.

    Args:
        watched: the lines of the stream, the finished pictures last.
        address: of the model.
        token: the gateway wants one.
    """
    last = watched[-1]
    rows = last["images"]
    times = dict(re.findall(r"(\w+);dur=([0-9.]+)", last.get("server_timing", "")))
    entries = {"Seed": last["seed"], "Evaluations": f"{last['nfe']} per picture"}
    if times:
        entries |= {"Drawn in": f"{float(times['sample']):.0f} ms"}
        entries |= {"of which queued": f"{float(times['queue']):.0f} ms"}
    used = last["settings"]
    entries |= {"Sampler": f"{used['sampler']}, {used['steps']} steps"}
    if "energy" in rows[0]:
        entries["Energies"] = f"{min(r['energy'] for r in rows):.1f} to {max(r['energy'] for r in rows):.1f}"
    scale = _scale(model, len(rows))
    png = markup.grid([row["png"] for row in rows], scale)
    gif = images.gif([images.enlarge(markup.pixels(line["preview"]), scale) for line in watched])
    fields = {"seed": last["seed"]} | fields | ({"scale": scale} if scale > 1 else {})
    name = f"{model.name}-{last['seed']}"
    return (
        markup.facts(entries)
        + markup.links(
            markup.download(png, f"{name}.png", "Download PNG", "image/png"),
            markup.download(gif, f"{name}.gif", "Download GIF", "image/gif"),
        )
        + markup.command(markup.curl(address, fields, f"{name}.png", token), "The same pictures again")
    )


def _scale(model: Model, n: int) -> int:
    """Return the enlargement of n pictures that are stored, as far as the server gives as many pixels."""
    values = n * math.prod(model.shape)
    return next((s for s in range(markup.CURL_SCALE, 1, -1) if values * s * s <= PIXELS_MAX), 1)


def _grid(model: Model, line: Line) -> str:
    state = "finished" if "images" in line else f"after step {line['step']}"
    return markup.sheet(base64.b64decode(line["preview"]), f"Pictures by {model.name}, {state}")


def _progress(line: Line) -> str:
    return f"Step {line['step']}: {line['nfe']} evaluations, noise level {line['sigma']:.3g}."


def _summary(line: Line) -> str:
    n = len(line["images"])
    return f"{n} picture{'s' if n != 1 else ''} after {line['step']} steps."
