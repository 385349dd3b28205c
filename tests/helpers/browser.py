"""A Chromium that looks at the page of a gateway, and remembers what it asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from playwright.sync_api import Browser, sync_playwright

from genserve.commands import page_pictures
from genserve.commands.page_pictures import CHROMIUM

INSIDE = ("data:", "blob:", "about:")  # addresses that need no network


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser; when the block ends, it ends."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Visit(page_pictures.Visit):
    """A visit to the page of a gateway.

    Args:
        outside: addresses elsewhere that the page asked for.
        errors: what it complained of.
    """

    outside: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@contextmanager
def visiting(browser: Browser, url: str, *tabs: str, width: int = 1280, height: int = 900) -> Iterator[Visit]:
    """Visit the page of a gateway, and a tab that has a model; when the block ends, no request has left it.

    Raises:
        AssertionError: one has, or the page complained.
    """
    page = browser.new_page(viewport={"width": width, "height": height})
    visit = Visit(page, url)

    def note(address: str) -> None:
        if not address.startswith((f"{url}/", *INSIDE)):
            visit.outside.append(address)

    page.on("request", lambda request: note(request.url))
    page.on("console", lambda line: visit.errors.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: visit.errors.append(str(error)))
    visit.open(*tabs)
    yield visit
    page.close()
    assert not visit.outside
    assert not visit.errors
