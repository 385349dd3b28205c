"""The tab Process: noise turns into a picture, x_t beside the guess of x_0, two settings from one seed."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import gradio as gr

from genserve.gateway.page import controls, markup, settings
from genserve.gateway.page.asking import Line, Refused, merged
from genserve.gateway.page.catalogue import Model
from genserve.gateway.page.context import Context
from genserve.gateway.page.film import Frame, Reel, film

FRAMES = 32  # of each film, at most
FRAME_S = 0.2  # between two looks at the films while they grow
SHOWN = 240  # pixels of a screen that a picture of one setting may be wide
VIEWS = ("x_t", "x_0")  # values of the field `preview`
NAMES = {"x_t": "x<sub>t</sub>", "x_0": "guess of x<sub>0</sub>"}
SIDES = ("A", "B")

# what is worth comparing: a name, and the settings of both sides that are not the model's own
PRESETS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "Few steps, many steps": (
        {"sampler": "ddim", "eta": 0.0, "steps": 4}, {"sampler": "ddim", "eta": 0.0, "steps": 50}
    ),
    "No fresh noise, all of it": (
        {"sampler": "ddim", "eta": 0.0, "steps": 25}, {"sampler": "ddim", "eta": 1.0, "steps": 25}
    ),
    "First order, second order": (
        {"sampler": "ddim", "eta": 0.0, "steps": 9}, {"sampler": "heun", "steps": 5}
    ),
    "Without and with guidance": ({"guidance": 1.0}, {"guidance": 4.0}),
}  # fmt: skip


class Process:
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
        with gr.Row(elem_classes="presets"):
            presets = [(controls.preset(name), both) for name, both in PRESETS.items()]
        with gr.Row():
            self.model = controls.model_choice()
            self._label = controls.label_choice(each=False)
            self._seed = controls.seed()
        with gr.Row():
            self._sides = {side: self._settings(side) for side in SIDES}
        with gr.Row(elem_classes="actions"):
            start = gr.Button("Compare", variant="primary", elem_id="process-start")
            stop = gr.Button("Stop", elem_id="process-stop")
        self._status = gr.HTML(markup.status("Both settings begin at the same noise."))
        self._result = gr.HTML(markup.empty("Two films stand here, turned by one slider."), elem_id="films")
        inputs = [self.model, self._label, self._seed]
        inputs += [component for side in SIDES for component in self._sides[side].components]
        self._forms = [controls.Form(model=self.model, label=self._label, seed=self._seed)]
        self._forms += self._sides.values()
        outputs = [self._status, self._result, *(c for form in self._forms for c in form.components)]
        run = start.click(self.compare, inputs, outputs, show_progress="hidden")
        stop.click(lambda: markup.status("Stopped. The server has let the requests go."), None, self._status,
                   cancels=[run], show_progress="hidden")  # fmt: skip
        sides = [component for side in SIDES for component in self._sides[side].components]
        self.model.change(
            self.suited, [self.model, self._label], [self._label, *sides], show_progress="hidden"
        )
        for button, both in presets:
            button.click(self._set(both), self.model, sides, show_progress="hidden").then(
                self.compare, inputs, outputs, show_progress="hidden"
            )

    def _settings(self, side: str) -> controls.Form:
        with gr.Column(min_width=280):
            gr.HTML(f"<h3 class='side'>Setting {side}</h3>")
            return controls.Form(**settings.inputs(side, notes=False))

    def _set(self, both: tuple[dict[str, Any], dict[str, Any]]) -> Any:
        async def changed(name: str) -> list[Any]:
            try:
                model = await self._context.catalogue.named(name, *settings.FAMILIES)
            except Refused:
                return [gr.skip()] * 2 * len(settings.NAMES)
            return [(settings.own(model) | values)[name] for values in both for name in settings.NAMES]

        return changed

    async def suited(self, name: str, label: str) -> list[Any]:
        """Return class and settings as a model has them."""
        try:
            model = await self._context.catalogue.named(name, *settings.FAMILIES)
        except Refused:
            return [gr.skip()] * (1 + 2 * len(settings.NAMES))
        both = settings.updates(model) * len(SIDES)
        return [controls.labels_update(model, label, each=False), *both]

    async def compare(
        self, request: gr.Request, name: str, label: str, seed: str, *both: Any
    ) -> AsyncGenerator[controls.Updates, None]:
        """Yield what the page shows while two pictures are drawn from one seed."""
        cleared: controls.Updates = {self._status: markup.status("Asking the server ...")}
        for form in self._forms:
            cleared |= form.cleared()
        yield cleared
        n = len(settings.NAMES)
        values = {"A": dict(zip(settings.NAMES, both[:n], strict=True))}
        values["B"] = dict(zip(settings.NAMES, both[n:], strict=True))
        try:
            model = await self._context.catalogue.named(name, *settings.FAMILIES)
            fields = controls.label_fields(label, model.classes, 1)
            chosen = controls.seed_of(model.request, seed)
            fields["seed"] = controls.drawn_seed() if chosen is None else chosen
        except Refused as refusal:
            yield self._forms[0].refused(refusal, self._status)
            return
        streams, visitor = {}, self._context.visitor(request)
        for side in SIDES:
            chosen_fields = fields | settings.given(model, values[side])
            for view in VIEWS:
                watching = {"frames": FRAMES, "preview": view}
                streams[side, view] = visitor.lines(model.name, chosen_fields | watching)
        looked = 0.0
        watched: dict[tuple[str, str], list[Line]] = {key: [] for key in streams}
        async with aclosing(merged(streams)) as items:
            async for (side, view), item in items:
                if isinstance(item, Refused):
                    yield self._sides[side].refused(item, self._status)
                    return
                watched[side, view].append(item)
                if time.monotonic() - looked >= FRAME_S:
                    looked = time.monotonic()
                    yield {self._result: _films(model, watched)}
        seed_shown = fields["seed"]
        yield {
            self._result: _films(model, watched),
            self._status: markup.status(f"Both from seed {seed_shown}. Turn the slider back to the noise."),
        }


def _films(model: Model, watched: dict[tuple[str, str], list[Line]]) -> str:
    return film([_reel(model, side, watched) for side in SIDES], SHOWN)


def _reel(model: Model, side: str, watched: dict[tuple[str, str], list[Line]]) -> Reel:
    noisy, guesses = (watched[side, view] for view in VIEWS)
    reel = Reel(f"Setting {side}", model.shape[2])
    for line in noisy:
        if not guesses:
            break
        guess = min(guesses, key=lambda other: abs(other["sigma"] - line["sigma"]))
        finished = "images" in line
        caption = "finished" if finished else f"step {line['step']}, noise level {line['sigma']:.3g}"
        pair = [(line["preview"], NAMES["x_t"]), (guess["preview"], NAMES["x_0"])]
        reel.frames.append(Frame(pair, caption))
        if finished:
            used = line["settings"]
            reel.note = markup.facts(
                {"Sampler": used["sampler"], "Steps": used["steps"], "Evaluations": line["nfe"]}
            )
    return reel
