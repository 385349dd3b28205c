"""Text: tokens as they come, shaded by their probability."""

import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from html import escape
from typing import Any

import gradio as gr

from genserve.gateway.page import controls, markup
from genserve.gateway.page.asking import Line, Refused
from genserve.gateway.page.catalogue import request_of
from genserve.gateway.page.context import Context

FAMILY = "text"
SHADE_MAX, NATS = 0.5, 14.0  # of the ground of a token; nats of probability that fill it
PRESETS = {
    "A truth": "It is a truth universally acknowledged, that",
    "Mr. Darcy": "Mr. Darcy looked at her, and",
    "A ball": "The ball at Netherfield was",
}


class Writing:
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
                    presets = [(controls.preset(name), text) for name, text in PRESETS.items()]
                with gr.Row():
                    self.model = controls.model_choice()
                    seed = controls.seed()
                prompt = gr.Textbox(
                    PRESETS["A truth"], lines=3, label="Prompt", info=controls.hint(kind, "prompt")
                )
                temperature = controls.slider(kind, "temperature", "Temperature", 0.8, step=0.05, most=2)
                length = controls.slider(kind, "length", "Length", 120, most=400)
                with gr.Row(elem_classes="actions"):
                    start = gr.Button("Write", variant="primary", elem_id="text-start")
                    stop = gr.Button("Stop", elem_id="text-stop")
            with gr.Column(scale=3, min_width=300):
                self._status = gr.HTML(markup.status("The text goes on from the prompt, token by token."))
                self._result = gr.HTML(markup.empty("Tokens appear here as they are drawn."), elem_id="text")
        self._form = controls.Form(
            model=self.model, prompt=prompt, seed=seed, temperature=temperature, length=length
        )
        outputs = [self._status, self._result, *self._form.components]
        run = start.click(self.write, self._form.components, outputs, show_progress="hidden")
        stop.click(
            lambda: markup.status("Stopped."), None, self._status, cancels=[run], show_progress="hidden"
        )
        self.model.change(self.suited, self.model, temperature, show_progress="hidden")
        for button, text in presets:
            button.click(lambda text=text: text, None, prompt, show_progress="hidden").then(
                self.write, self._form.components, outputs, show_progress="hidden"
            )

    async def suited(self, name: str) -> Any:
        """Return the temperature of a model."""
        try:
            return (await self._context.catalogue.named(name, FAMILY)).description["temperature"]
        except Refused:
            return gr.skip()

    async def write(self, request: gr.Request, *values: Any) -> AsyncGenerator[controls.Updates, None]:
        """Yield the text as it comes."""
        inputs = self._form.values(values)
        yield self._form.cleared() | {self._status: markup.status("Asking the server ...")}
        try:
            model = await self._context.catalogue.named(inputs["model"], FAMILY)
            seed = controls.seed_of(model.request, inputs["seed"])
            fields: dict[str, Any] = {"prompt": inputs["prompt"], "log_probabilities": True}
            fields |= {"length": inputs["length"]} | ({} if seed is None else {"seed": seed})
            fields |= controls.given(model, temperature=inputs["temperature"])
            tokens: list[Line] = []
            async with aclosing(self._context.visitor(request).lines(model.name, fields)) as stream:
                async for line in stream:
                    if not line.get("done"):
                        tokens.append(line)
                        yield {self._result: page_of(inputs["prompt"], tokens)}
                        continue
                    row = line["texts"][0]
                    bits = -row["log_p"] / math.log(2) / max(1, row["n_tokens"])
                    yield {
                        self._result: page_of(inputs["prompt"], row["tokens"]),
                        self._status: markup.status(
                            f"{row['n_tokens']} tokens, {bits:.2f} bits each, seed {row['seed']}."
                        ),
                    }
        except Refused as refusal:
            yield self._form.refused(refusal, self._status)


def page_of(prompt: str, tokens: list[Line]) -> str:
    """Return prompt and tokens as text; the less likely a token, the darker its ground."""
    spans = "".join(map(_span, tokens))
    return (
        f"<div class='written'><span class='prompt'>{escape(prompt)}</span>{spans}</div>"
        "<p class='caption'>The darker the ground, the less likely the model held the token.</p>"
    )


def _span(token: Line) -> str:
    p, shade = math.exp(token["log_p"]), min(SHADE_MAX, -token["log_p"] / NATS)
    return f"<span style='--shade:{shade:.2f}' title='probability {p:.3f}'>{escape(token['text'])}</span>"
