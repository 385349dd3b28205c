"""GAN and VAE: a walk through the noise from one seed to another."""

from html import escape
from typing import Any

import gradio as gr

from genserve.families import FAMILIES
from genserve.gateway.page import controls, markup
from genserve.gateway.page.asking import Refused
from genserve.gateway.page.catalogue import Model, request_of
from genserve.gateway.page.context import Context
from genserve.gateway.page.film import Frame, Reel, film

KINDS = ("gan", "vae")
STEPS = 24  # of a walk, at first
SHOWN = 280
CHANGES = {name: FAMILIES[name].once for name in KINDS}  # the field that changes the noise


class Latents:
    """The part; `build` makes its components in the block that is open.

    Args:
        context: what the tabs share.
    """

    families = KINDS

    def __init__(self, context: Context) -> None:
        self._context = context

    def build(self) -> None:
        """Make the part."""
        kind = request_of(KINDS[0])
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                with gr.Row():
                    self.model = controls.model_choice()
                    label = controls.label_choice(each=False, none=False)
                with gr.Row():
                    seed = controls.seed("1", "From seed")
                    seed_to = controls.seed("2", "To seed")
                count = controls.slider(kind, "num_samples", "Pictures on the way", STEPS, info="")
                changes = {
                    CHANGES[name]: controls.slider(
                        request_of(name), CHANGES[name], CHANGES[name].title(), 1, step=0.05,
                        most=bounded(name),
                    )
                    for name in KINDS
                }  # fmt: skip
                start = gr.Button("Walk", variant="primary", elem_id="latents-start")
            with gr.Column(scale=3, min_width=300):
                self._status = gr.HTML(markup.status("Every picture is one evaluation."))
                self._result = gr.HTML(markup.empty("A walk from one picture to another."), elem_id="walk")
        self._form = controls.Form(
            model=self.model, label=label, seed=seed, seed_to=seed_to, num_samples=count, **changes
        )
        outputs = [self._status, self._result, *self._form.components]
        start.click(self.walk, self._form.components, outputs, show_progress="hidden")
        self.model.change(
            self.suited, [self.model, label], [label, *changes.values()], show_progress="hidden"
        )

    async def suited(self, name: str, label: str) -> list[Any]:
        """Return class and change of the noise as a model has them."""
        try:
            model = await self._context.catalogue.named(name, *KINDS)
        except Refused:
            return [gr.skip()] * (1 + len(KINDS))
        sliders = []
        for kind in KINDS:
            usual = model.description.get(CHANGES[kind])
            sliders.append(
                gr.update(visible=kind == model.family, value=bounded(kind) if usual is None else usual)
            )
        return [controls.labels_update(model, label, each=False, none=False), *sliders]

    async def walk(self, request: gr.Request, *values: Any) -> Any:
        """Return what the page shows of a walk."""
        inputs = self._form.values(values)
        try:
            model = await self._context.catalogue.named(inputs["model"], *KINDS)
            fields = controls.label_fields(inputs["label"], model.classes, inputs["num_samples"])
            for name in ("seed", "seed_to"):
                seed = controls.seed_of(model.request, inputs[name], name)
                fields[name] = controls.drawn_seed() if seed is None else seed
            change = CHANGES[model.family]
            if inputs[change] < bounded(model.family):
                fields |= controls.given(model, **{change: inputs[change]})
            drawn = await self._context.visitor(request).answer(model.name, fields | {"format": "json"})
        except Refused as refusal:
            return self._form.cleared() | self._form.refused(refusal, self._status)
        return self._form.cleared() | {
            self._status: markup.status(f"{len(drawn['images'])} pictures, one evaluation each."),
            self._result: film([_reel(model, drawn)], SHOWN, "From one seed to the other"),
        }


def bounded(family: str) -> float:
    """Return where the slider of a family's change of the noise ends: as good as no change."""
    return min(4.0, controls.bounds(request_of(family), CHANGES[family])[1])


def _reel(model: Model, drawn: dict[str, Any]) -> Reel:
    reel = Reel(f"Seed {drawn['seed']} to {drawn['images'][0]['seed_to']}", model.shape[2])
    for row in drawn["images"]:
        kind = "" if row["label"] is None else f", class {model.classes[row['label']]}"
        reel.frames.append(Frame([(row["png"], escape(model.name))], f"t = {row['t']:.2f}{kind}"))
    return reel
