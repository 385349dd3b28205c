"""Inputs of the page, with the ranges and the words of the requests, and refusals shown beside them."""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import gradio as gr

from genserve.gateway.page.asking import Refused
from genserve.gateway.page.catalogue import Model
from genserve.gateway.page.markup import alert
from genserve.labels import NO_CLASS
from genserve.serving.fields import BadRequest, Fields, choices, parse

ANY, EACH = "", "*"  # values of a class: drawn for each picture, and one after the other
BEST, OWN = "", "the model's best"  # value and name of a choice: what the model does by itself
DRAWN_BITS = 53  # of a seed that is drawn: a browser's numbers hold them
Updates = dict[Any, Any]


def hint(kind: type[Fields], name: str) -> str:
    """Return the beginning of what a request says of a field, as the line under an input."""
    text = (kind.model_fields[name].description or "").split("; ")[0]
    return f"{text[:1].upper()}{text[1:]}."


def bounds(kind: type[Fields], name: str) -> tuple[float, float]:
    """Return the least and the greatest number that a field may be."""
    limits: dict[str, float] = {
        end: getattr(limit, end)
        for limit in kind.model_fields[name].metadata
        for end in ("ge", "gt", "le")
        if hasattr(limit, end)
    }
    return limits["ge"] if "ge" in limits else limits["gt"], limits["le"]


def slider(
    kind: type[Fields],
    name: str,
    label: str,
    value: float,
    *,
    step: float = 1,
    most: float | None = None,
    info: str | None = None,
) -> gr.Slider:
    """Return a slider for a number.

    Args:
        most: where it ends, if the field's greatest number is of no use to people.
        info: the line under it; what the request says if not given.
    """
    low, high = bounds(kind, name)
    text = hint(kind, name) if info is None else info
    return gr.Slider(low, most or high, value, step=step, label=label, info=text)


def seed(value: str = "", label: str = "Seed") -> gr.Textbox:
    """Return the input of a seed, which is text: a browser's numbers end at 2**53."""
    return gr.Textbox(value, label=label, placeholder="drawn", max_lines=1)


def seed_of(kind: type[Fields], text: str, name: str = "seed") -> int | None:
    """Return the seed that a text says; None if it is empty.

    Raises:
        Refused: it is no seed.
    """
    if not text.strip():
        return None
    try:
        value: int = getattr(parse(kind, {name: text.strip()}, text=True), name)
    except BadRequest as error:
        raise Refused.of(error.body(), error.status) from None
    return value


def drawn_seed() -> int:
    """Return a seed for requests that must have the same one."""
    return secrets.randbelow(2**DRAWN_BITS)


def preset(name: str) -> gr.Button:
    """Return a small button."""
    return gr.Button(name, size="sm", min_width=90)


def model_choice(label: str = "Model") -> gr.Dropdown:
    """Return the choice of a model, which is filled when the page loads."""
    return gr.Dropdown([], label=label, filterable=False)


def models_update(models: Sequence[Model], current: str | None) -> Any:
    """Return what fills the choice of a model; the current one stays if it is there."""
    names = [model.name for model in models]
    value = current if current in names else next(iter(names), None)
    return gr.update(choices=names, value=value)


def label_choice(each: bool = True, none: bool = True) -> gr.Dropdown:
    """Return the choice of a class.

    Args:
        each: one class after the other may be chosen.
        none: no class may be chosen.
    """
    return gr.Dropdown(_labels([], each, none), value=ANY, label="Class")


def labels_update(model: Model, current: str, *, each: bool = True, none: bool = True) -> Any:
    """Return what fills the choice of a class for a model."""
    entries = _labels(model.classes, each, none)
    value = current if current in [value for _, value in entries] else ANY
    return gr.update(choices=entries, value=value, interactive=bool(model.classes))


def _labels(classes: Sequence[str], each: bool, none: bool) -> list[tuple[str, str]]:
    entries = [("any", ANY)]
    entries += [("each in turn", EACH)] if each and classes else []
    entries += [("no class", NO_CLASS)] if none and classes and NO_CLASS not in classes else []
    return entries + [(name, name) for name in classes]


def label_fields(value: str, classes: Sequence[str], n: int) -> dict[str, Any]:
    """Return the fields of a request for n pictures of a class that was chosen."""
    if value == EACH and classes:
        return {"label": [classes[k % len(classes)] for k in range(n)]}
    return {"num_samples": n} | ({} if value in (ANY, EACH) else {"label": value})


def best_choice(kind: type[Fields], name: str, label: str) -> gr.Dropdown:
    """Return a choice among a field's values, or the model's own."""
    entries = [(OWN, BEST), *((value, value) for value in choices(kind, name))]
    return gr.Dropdown(entries, value=BEST, label=label, info="", filterable=False)


def best_update(model: Model, name: str, current: str) -> Any:
    """Return what fills such a choice for a model."""
    values = choices(model.request, name)
    entries = [(OWN, BEST), *((value, value) for value in values)]
    return gr.update(choices=entries, value=current if current in values else BEST)


def given(model: Model, **values: Any) -> dict[str, Any]:
    """Return the fields that differ from what the model does by itself."""
    own = model.description
    return {
        name: value for name, value in values.items() if value not in (None, BEST) and value != own.get(name)
    }


class Form:
    """Inputs by the names of their fields; a refusal stands under the input that it concerns.

    Args:
        inputs: by name.
    """

    def __init__(self, **inputs: Any) -> None:
        self.inputs: Mapping[str, Any] = inputs
        self._hints = {name: component.info for name, component in inputs.items()}

    @property
    def components(self) -> list[Any]:
        return list(self.inputs.values())

    def values(self, values: Iterable[Any]) -> dict[str, Any]:
        """Return what the inputs hold, by name."""
        return dict(zip(self.inputs, values, strict=True))

    def cleared(self) -> Updates:
        """Return the updates that take all refusals away."""
        return {
            component: gr.update(info=self._hints[name], elem_classes=[])
            for name, component in self.inputs.items()
        }

    def refused(self, refusal: Refused, status: Any) -> Updates:
        """Return the updates that show a refusal.

        Args:
            status: component that shows what concerns no input.
        """
        component = self.inputs.get(refusal.field)
        if component is None:
            return {status: alert(refusal.sentence)}
        return {
            component: gr.update(info=f"⚠ {refusal.sentence}", elem_classes=["refused"]),
            status: alert(f"{component.label}: {refusal.sentence}"),
        }
