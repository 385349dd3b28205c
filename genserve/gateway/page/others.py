"""The tab Others: what draws or answers otherwise than along noise levels, a part for each."""

from typing import Any

import gradio as gr

from genserve.gateway.page.context import Context
from genserve.gateway.page.labels import Labels
from genserve.gateway.page.latents import Latents
from genserve.gateway.page.words import Words
from genserve.gateway.page.writing import Writing

PARTS = {"GAN, VAE": Latents, "Classifier": Labels, "Text": Writing, "Words": Words}


class Others:
    """The tab; `build` makes its components in the block that is open.

    Args:
        context: what the tabs share.
    """

    def __init__(self, context: Context) -> None:
        self._parts: dict[str, Any] = {name: part(context) for name, part in PARTS.items()}

    def build(self) -> None:
        """Make the tab, with a tab for each part."""
        with gr.Tabs():
            for name, part in self._parts.items():
                with gr.Tab(name):
                    part.build()

    @property
    def models(self) -> list[tuple[gr.Dropdown, tuple[str, ...]]]:
        """The choices of a model, and the families of each."""
        return [(part.model, part.families) for part in self._parts.values()]
