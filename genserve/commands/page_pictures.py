"""Take pictures of the page of a running gateway, each of its tabs at two widths, for docs/images.

    genserve page-pictures                              of http://127.0.0.1:8090, into docs/images
    genserve page-pictures --tabs Draw Energy --widths 1280

Each tab does something worth seeing first. The server behind needs the models diffusion, energy and words;
the tab Train shows the newest job. It needs playwright, and a Chromium that is on the machine.
"""

import io
import shutil
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from genserve.gateway.options import PORT
from genserve.operate.api import LOOPBACK
from genserve.places import PROJECT

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WAIT_MS = 240_000  # for an answer: the machine may be busy
WIDTHS = (1280, 400)
HEIGHT = 900
COLOURS = 256


@dataclass
class Visit:
    """A visit to the page of a gateway.

    Args:
        page: of the browser.
        url: of the gateway.
    """

    page: Page
    url: str

    def open(self, *tabs: str) -> None:
        """Load the page, open a tab and a tab in it, and wait until a choice of a model is filled."""
        self.page.set_default_timeout(WAIT_MS)
        self.page.goto(f"{self.url}/page/")
        self.tab(*tabs)
        filled = "[...document.querySelectorAll('[aria-label=Model]')].some(choice => choice.value)"
        self.page.wait_for_function(filled)

    def tab(self, *names: str) -> None:
        """Open a tab, and a tab in it."""
        for name in names:
            self.page.get_by_role("tab", name=name, exact=True).click()

    def press(self, name: str) -> None:
        """Press the button of a name that can be seen."""
        self.visible(self.page.get_by_role("button", name=name, exact=True)).click()

    def fill(self, label: str, value: str) -> None:
        """Write into the input of a label; of a slider, its number."""
        box = self.visible(self.page.get_by_label(label))
        box.fill(value)
        box.press("Tab")

    def choose(self, label: str, value: str) -> None:
        """Choose a value of the choice of a label."""
        self.visible(self.page.get_by_label(label, exact=True)).click()
        self.page.get_by_role("option", name=value, exact=True).click()

    def status(self, pattern: str) -> str:
        """Wait until the line about what goes on matches a pattern of JavaScript; return it."""
        matches = (
            "pattern => [...document.querySelectorAll('.status')]"
            ".some(line => line.checkVisibility() && new RegExp(pattern).test(line.textContent))"
        )
        self.page.wait_for_function(matches, arg=pattern)
        return self.visible(self.page.locator(".status")).inner_text()

    def visible(self, locator: Locator) -> Locator:
        """Return the first of these that can be seen."""
        return locator.locator("visible=true").first


def draw(visit: Visit) -> None:
    """Draw a grid of all classes."""
    visit.fill("Seed", "7")
    visit.press("Each class in turn")
    visit.status("pictures after")


def process(visit: Visit) -> None:
    """Compare few steps with many, in the middle of the way."""
    visit.fill("Seed", "5")
    visit.press("Few steps, many steps")
    visit.status("Both from seed")
    slider = visit.page.get_by_label("From noise to picture")
    middle = int(slider.get_attribute("max") or 0) * 3 // 5
    slider.evaluate("(slider, at) => { slider.value = at; }", middle)
    slider.dispatch_event("input")


def energy(visit: Visit) -> None:
    """Fill the lower half of a drawing."""
    visit.choose("Class", "3")
    visit.press("A three")
    visit.press("Mark the lower half")
    visit.press("Fill")
    visit.page.get_by_text("after", exact=True).wait_for()


def train(visit: Visit) -> None:
    """Look at the newest job; train one if there is none."""
    try:
        visit.page.locator("#samples img").wait_for(timeout=10_000)
    except TimeoutError:
        visit.press("Train")
        visit.page.locator("#samples img").wait_for()


def others(visit: Visit) -> None:
    """Look at the map of words of three fields."""
    visit.tab("Words")
    visit.press("Three fields")
    visit.page.locator("#words svg").wait_for()


SCENES: dict[str, Callable[[Visit], None]] = {
    "Draw": draw, "Process": process, "Energy": energy, "Train": train, "Others": others
}  # fmt: skip


def command_line(argv: list[str]) -> Namespace:
    """Return what the flags ask for."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    url = f"http://{LOOPBACK}:{PORT}"
    parser.add_argument("--url", default=url, help=f"of the gateway (default: {url})")
    parser.add_argument("--output", type=Path, default=PROJECT / "docs/images", help="(default: docs/images)")
    parser.add_argument("--tabs", nargs="+", choices=SCENES, default=list(SCENES), help="(default: all)")
    parser.add_argument("--widths", nargs="+", type=int, default=WIDTHS, help="pixels (default: 1280 400)")
    return parser.parse_args(argv)


def run(argv: list[str]) -> None:
    """Take the pictures that the flags ask for."""
    options = command_line(argv)
    if CHROMIUM is None:
        sys.exit("there is no Chromium: install it (Debian: apt-get install chromium)")
    options.output.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for tab in options.tabs:
            for width in options.widths:
                path = options.output / f"page-{tab.lower()}-{width}.png"
                path.write_bytes(reduced(shot(browser, options.url, tab, width)))
                print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
        browser.close()


def shot(browser: Browser, url: str, tab: str, width: int) -> bytes:
    """Return a picture of a tab after its scene, a PNG."""
    page = browser.new_page(viewport={"width": width, "height": HEIGHT})
    visit = Visit(page, url)
    visit.open()
    visit.tab(tab)
    SCENES[tab](visit)
    page.mouse.move(0, 0)
    page.wait_for_timeout(1000)  # for the colours of a button that was pressed
    picture = page.screenshot(full_page=True)
    page.close()
    return picture


def reduced(png: bytes) -> bytes:
    """Return a picture in few colours, a smaller PNG."""
    buffer = io.BytesIO()
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
