"""The models that a server has, by family, as they describe themselves."""

import asyncio
import json
import time
from dataclasses import dataclass
from functools import cache
from typing import Any

from genserve.families import FAMILIES, load
from genserve.gateway.page.asking import Refused, Visitor
from genserve.gateway.upstream import UpstreamError
from genserve.operate.archive import SHIPPED
from genserve.places import PROJECT
from genserve.serving.fields import Fields

BELIEVED_S = 5.0  # a description: a version may be rolled


@dataclass(frozen=True)
class Model:
    """A model of the server.

    Args:
        name: in the URL.
        description: what it answers to the task `describe`.
    """

    name: str
    description: dict[str, Any]

    @property
    def family(self) -> str:
        return str(self.description["family"])

    @property
    def request(self) -> type[Fields]:
        """The class of what it may be asked."""
        return request_of(self.family)

    @property
    def classes(self) -> list[str]:
        return list(self.description.get("classes", ()))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of its pictures."""
        channels, height, width = self.description["shape"]
        return channels, height, width


@cache
def request_of(family: str) -> type[Fields]:
    """Return the class of what a family may be asked."""
    kind: type[Fields] = load(FAMILIES[family].request)
    return kind


class Catalogue:
    """What a server has.

    Args:
        visitor: asks it.
    """

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._models: dict[str, tuple[float, Model | None]] = {}
        self._looking = asyncio.Lock()

    async def of(self, *families: str) -> list[Model]:
        """Return the models of some families that answer now, the ones that are named like them first.

        None are there if the server is away.
        """
        async with self._looking:
            try:
                names = await self._visitor.upstream.models()
            except UpstreamError:
                return []
            entries = await asyncio.gather(*(self._model(name) for name in sorted(names)))
        models = [model for model in entries if model is not None and model.family in families]
        return sorted(models, key=lambda model: (families.index(model.family), model.name != model.family))

    async def named(self, name: str | None, *families: str) -> Model:
        """Return a model.

        Raises:
            Refused: there is none of this name that answers; the sentence says what to do.
        """
        models = await self.of(*families)
        for model in models:
            if model.name == name:
                return model
        if name and models:
            raise Refused(f"{name} does not answer now; choose another model.", "model")
        raise Refused(missing(*families), "model")

    async def _model(self, name: str) -> Model | None:
        at, model = self._models.get(name, (-BELIEVED_S, None))
        if time.monotonic() - at >= BELIEVED_S:
            try:
                model = Model(name, await self._visitor.answer(name, {"task": "describe"}))
            except Refused:  # no worker of it is ready
                model = None
            self._models[name] = (time.monotonic(), model)
        return model


def missing(*families: str) -> str:
    """Return a sentence for a server without a model of these families, with the commands that help."""
    kinds = " or ".join(KINDS[family] for family in families)
    name = next((name for family in families for name in _shipped(family)), families[0])
    return (
        f"No {kinds} answers on this server. Build one with ./scripts/build_archives {name} and serve it "
        f"with ./scripts/models register {name}.mar; then load this page again."
    )


# what people call a model of a family
KINDS = {
    "diffusion": "diffusion model",
    "energy": "energy",
    "labels": "classifier",
    "text": "language model",
    "words": "vectors of words",
    "gan": "GAN",
    "vae": "VAE",
}


@cache
def _shipped(family: str) -> list[str]:
    """Return the names of the archives of a family that this project ships."""
    configs = {name: PROJECT / run / "config.json" for name, run in SHIPPED.items()}
    return [
        name
        for name, path in configs.items()
        if path.is_file() and json.loads(path.read_text())["model"]["family"] == family
    ]
