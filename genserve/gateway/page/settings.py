"""How pictures are drawn along noise levels, as inputs: sampler, steps, eta and guidance."""

from typing import Any

import gradio as gr

from genserve.gateway.page import controls
from genserve.gateway.page.catalogue import Model, request_of

FAMILIES = ("diffusion", "energy")
NAMES = ("sampler", "steps", "eta", "guidance")
USUAL = "diffusion"  # the family whose ranges the inputs have until a model is chosen


def inputs(side: str = "", notes: bool = True) -> dict[str, Any]:
    """Make the inputs in the block that is open; return them by name.

    Args:
        side: what stands behind their names.
        notes: with what each means.
    """
    kind, info = request_of(USUAL), None if notes else ""
    suffix = f" {side}" if side else ""
    sampler = controls.best_choice(kind, "sampler", f"Sampler{suffix}")
    steps = controls.slider(kind, "steps", f"Steps{suffix}", 18, info=info)
    eta = controls.slider(kind, "eta", f"Eta{suffix}", 0, step=0.05, info=info)
    guidance = controls.slider(kind, "guidance", f"Guidance{suffix}", 1, step=0.1, info=info)
    return dict(zip(NAMES, (sampler, steps, eta, guidance), strict=True))


def own(model: Model) -> dict[str, Any]:
    """Return what a model does by itself, as inputs hold it."""
    return {name: model.description[name] for name in NAMES} | {"sampler": controls.BEST}


def updates(model: Model) -> list[Any]:
    """Return what fits the inputs to a model."""
    values = own(model)
    guided = model.family == USUAL
    return [
        controls.best_update(model, "sampler", values["sampler"]),
        values["steps"],
        values["eta"],
        gr.update(value=values["guidance"], interactive=guided),
    ]


def given(model: Model, values: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a request for what inputs hold."""
    fields = {name: values[name] for name in NAMES if name in model.request.model_fields}
    return controls.given(model, **fields)
