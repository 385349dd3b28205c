"""The page: its tabs, its looks, and its place in the gateway."""

import asyncio
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from fastapi.responses import Response

from genserve.gateway.page import controls
from genserve.gateway.page.context import Context
from genserve.gateway.page.draw import Draw
from genserve.gateway.page.energy import Energy
from genserve.gateway.page.others import Others
from genserve.gateway.page.process import Process
from genserve.gateway.page.train import Train
from genserve.gateway.state import Gateway

PATH = "/page"
TABS: dict[str, Any] = {"Draw": Draw, "Process": Process, "Energy": Energy, "Train": Train, "Others": Others}
AT_A_TIME = 64  # runs of one button, over all browsers
FILE_MAX = 1  # bytes of a file: pictures come without files
FOLDER = Path(__file__).parent
SYSTEM = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif"]
MONOSPACE = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
ICON = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">
<rect width="16" height="16" rx="3" fill="#111"/>
<path d="M4 4h8l-4 9" fill="none" stroke="#fff" stroke-width="2.2" stroke-linecap="round"/></svg>"""
HEADER = """<header class='top'><h1>genserve</h1>
<p>Small generative models, drawn live by the server behind this page.</p>
<nav aria-label='More'><a href='/docs'>API</a><a href='/health'>Health</a></nav></header>"""


def mount(app: FastAPI, gateway: Gateway) -> None:
    """Put the page at /page of an app, and its icon where browsers look for it.

    Args:
        gateway: of the app.
    """

    async def mounting() -> None:
        _mount(app, gateway)

    asyncio.run(mounting())  # if no event loop runs, Gradio opens several, and closes none of them


def _mount(app: FastAPI, gateway: Gateway) -> None:
    app.add_api_route("/favicon.ico", _icon, include_in_schema=False)
    blocks = build(Context(gateway))
    blocks.queue(default_concurrency_limit=AT_A_TIME)
    gr.mount_gradio_app(
        app,
        blocks,
        PATH,
        footer_links=[],
        run_history=False,
        max_file_size=FILE_MAX,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=theme(),
        css_paths=[FOLDER / "page.css"],
        head=f"<style>{_text('frame.css')}</style><script>{_text('page.js')}</script>",
    )


def _text(name: str) -> str:
    return (FOLDER / name).read_text()


def _icon() -> Response:
    return Response(ICON, media_type="image/svg+xml", headers={"Cache-Control": "max-age=86400"})


def build(context: Context) -> gr.Blocks:
    """Return the page."""
    with gr.Blocks(title="genserve", analytics_enabled=False) as blocks:
        gr.HTML(HEADER)
        fills: list[tuple[gr.Tab, Any, gr.Dropdown]] = []
        with gr.Tabs():
            for name, tab in TABS.items():
                content = tab(context)
                with gr.Tab(name, id=name.lower()) as opened:
                    content.build()
                fills += [(opened, _filling(context, *families), model) for model, families in content.models]
                if isinstance(content, Train):
                    fills.append((opened, content.refresh, content.job))
        for opened, fill, choice in fills:
            for event in (blocks.load, opened.select):
                event(fill, choice, choice, show_progress="hidden")
    assert isinstance(blocks, gr.Blocks)
    return blocks


def _filling(context: Context, *families: str) -> Any:
    """Return what fills the choice of a model of these families."""

    async def fill(current: str | None) -> Any:
        return controls.models_update(await context.catalogue.of(*families), current)

    return fill


def theme() -> gr.themes.Base:
    """Return the looks: fonts of the system, nothing that is loaded from elsewhere."""
    return gr.themes.Soft(
        primary_hue="indigo", neutral_hue="slate", font=SYSTEM, font_mono=MONOSPACE, radius_size="md"
    ).set(
        block_label_background_fill="transparent",
        block_title_background_fill="transparent",
        block_title_text_color="*body_text_color",
        block_title_text_weight="600",
        block_title_padding="0",
    )
