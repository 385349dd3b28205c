"""The page in Chromium with a real server behind it: what every tab does, at two widths, without internet."""

import base64
import io
import re
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from browser import Visit, chromium, visiting
from PIL import Image
from playwright.sync_api import Browser, expect
from real_gateway import Gateway
from real_server import ROOT, Server, wait_until
from small_jobs import WAIT_S
from small_latents import exported

from genserve.commands import page_pictures

pytestmark = [
    pytest.mark.server,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        page_pictures.CHROMIUM is None,
        reason="there is no Chromium: install it (Debian: apt-get install chromium)",
    ),
]
TABS = ("Draw", "Process", "Energy", "Train", "Others")
SEVEN = ROOT / "docs" / "images" / "seven.png"
# what can be used and has no name that a screen reader could say
NAMELESS = """() => [...document.querySelectorAll('input, select, textarea, button, canvas')]
  .filter(e => e.checkVisibility() && !e.closest('[aria-hidden=true]'))
  .filter(e => !(e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim() || e.title
    || e.closest('[aria-label]')))
  .map(e => e.outerHTML.slice(0, 200))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def drawing(browser: Browser, gateway: Gateway) -> Iterator[Visit]:
    with visiting(browser, gateway.url) as opened:
        yield opened


def cancelled(server: Server) -> float:
    lines = httpx.get(f"{server.metrics}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("genserve_cancelled_total{"))


def test_browsers_are_led_to_the_page_and_programs_to_what_the_server_can_do(gateway: Gateway) -> None:
    with gateway.client() as client:
        browsers = client.get("/", headers={"Accept": "text/html,*/*"})
        assert (browsers.status_code, browsers.headers["location"]) == (303, "/page/")
        assert client.get("/").json() == client.get("/health").json()


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_is_wider_than_the_screen_and_every_input_has_a_name(
    browser: Browser, gateway: Gateway, width: int
) -> None:
    with visiting(browser, gateway.url, width=width) as opened:
        for tab in TABS:
            opened.tab(tab)
            wide = opened.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert wide == [width, width], tab
            assert opened.page.evaluate(NAMELESS) == [], tab


def test_a_grid_appears_and_curl_gives_the_same_bytes(drawing: Visit, tmp_path: Path) -> None:
    drawing.fill("How many", "4")
    drawing.fill("Steps", "6")
    drawing.press("Draw")
    assert drawing.status("pictures after") == "4 pictures after 6 steps."
    page = drawing.page
    facts = page.locator("#draw-result .facts").inner_text()
    assert all(name in facts for name in ("Seed", "6 per picture", "ms"))
    line = shlex.split(page.locator("#draw-result code").inner_text())
    line[line.index("-o") + 1] = str(tmp_path / "again.png")
    subprocess.run(line, check=True, capture_output=True)
    links = page.locator("#draw-result a.button")
    png, gif = (links.nth(k).get_attribute("href") or "" for k in range(2))
    assert base64.b64decode(png.partition(",")[2]) == (tmp_path / "again.png").read_bytes()
    assert urllib.request.urlopen(gif).read().startswith(b"GIF89a")


def test_stop_and_leaving_free_the_place(browser: Browser, gateway: Gateway, server: Server) -> None:
    before = cancelled(server)
    with visiting(browser, gateway.url) as opened:
        for left in (False, True):
            opened.fill("How many", "16")
            opened.fill("Steps", "1000")
            opened.press("Draw")
            opened.status("^Step")
            if not left:
                opened.press("Stop")
                opened.status("Stopped")
                wait_until(lambda: cancelled(server), before + 1, 60)
    wait_until(lambda: cancelled(server), before + 2, 60)


def test_a_refusal_stands_beside_its_input_until_it_is_right(drawing: Visit) -> None:
    drawing.fill("Steps", "2")
    drawing.fill("How many", "1")
    drawing.fill("Seed", "-1")
    drawing.press("Draw")
    assert "Seed: Out of range" in drawing.status("range")
    field = drawing.page.locator(".refused")
    assert "Out of range (allowed: 0 to " in field.inner_text()
    assert field.get_by_label("Seed").count() == 1
    drawing.fill("Seed", "1")
    drawing.press("Draw")
    drawing.status("1 picture after")
    assert drawing.page.locator(".refused").count() == 0


def test_two_settings_from_one_seed_are_turned_by_one_slider(drawing: Visit) -> None:
    drawing.tab("Process")
    drawing.fill("Steps A", "3")
    drawing.fill("Steps B", "6")
    drawing.press("Compare")
    drawing.status("Both from seed")
    page = drawing.page
    reels = page.locator("#films .reel")
    for reel, frames in ((0, 4), (1, 7)):
        expect(reels.nth(reel).locator(".frame")).to_have_count(frames, timeout=page_pictures.WAIT_MS)
    captions = page.locator("#films .caption >> visible=true")
    expect(captions).to_have_text(["finished", "finished"])
    noise, guess = (page.locator("#films .frame").nth(0).locator("img").nth(k) for k in range(2))
    assert noise.get_attribute("src") != guess.get_attribute("src")
    page.get_by_label("From noise to picture").press("Home")
    expect(captions).to_have_text([re.compile("^step 1, noise level")] * 2)
    assert noise.is_visible()
    reels.nth(1).locator(".strip button").nth(6).click()
    expect(captions).to_have_text(["finished", "finished"])


def test_an_energy_judges_what_is_drawn_and_fills_what_is_marked(drawing: Visit) -> None:
    drawing.tab("Energy")
    page = drawing.page
    drawing.press("Nothing")
    drawing.press("Judge")
    blank = drawing.status("Energy")
    box = page.locator(".pad .board").locator("visible=true").bounding_box()
    assert box is not None
    for k, (x, y) in enumerate(((0.3, 0.25), (0.7, 0.25), (0.45, 0.8))):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=5)
        if k == 0:
            page.mouse.down()
    page.mouse.up()
    drawing.press("Judge")
    number = blank.split()[1].rstrip(":")
    drawing.status(f"Energy (?!{number})")
    assert page.locator("#energy-result img").count() == 2  # the picture and its heat map

    drawing.press("Fill")
    assert "Nothing is marked" in drawing.status("marked")
    drawing.fill("Steps", "3")
    drawing.press("Mark the lower half")
    drawing.press("Fill")
    page.get_by_text("after", exact=True).wait_for()
    drawing.press("Put the result on the pad")
    drawing.press("Refine")
    page.get_by_text("After", exact=False).first.wait_for()


def test_a_pad_takes_keys_and_files(drawing: Visit) -> None:
    drawing.tab("Energy")
    page = drawing.page
    board = page.locator(".pad .board").locator("visible=true")
    drawn = "() => [...document.querySelectorAll('.pad canvas')].find(c => c.checkVisibility()).toDataURL()"
    drawing.press("Nothing")
    before = page.evaluate(drawn)
    board.focus()
    for key in ("ArrowLeft", "ArrowUp", " "):
        page.keyboard.press(key)
    by_keys = page.evaluate(drawn)
    assert by_keys != before
    page.locator(".pad input[type=file]").first.set_input_files(SEVEN)
    page.get_by_text("seven.png: its middle").wait_for()
    assert page.evaluate(drawn) not in (before, by_keys)
    drawing.press("Judge")
    drawing.status("of the training images")


def test_what_the_server_lacks_is_named_with_the_command_that_builds_it(drawing: Visit) -> None:
    for part, button in (("GAN, VAE", "Walk"), ("Text", "Write"), ("Words", "Look")):
        drawing.tab("Others", part)
        drawing.press(button)
        assert "./scripts/build_archives" in drawing.status("No .* answers")


def test_a_walk_through_the_noise_of_a_gan(
    browser: Browser, gateway: Gateway, server: Server, tmp_path: Path
) -> None:
    run = exported(tmp_path, "gan").parent
    build = [sys.executable, str(ROOT / "scripts" / "build_archives"), "--output", str(server.store)]
    subprocess.run([*build, "--run", str(run), "--name", "walked"], check=True)
    try:
        with server.registered("walked.mar", "walked"), visiting(browser, gateway.url) as opened:
            opened.tab("Others")
            opened.fill("Pictures on the way", "5")
            opened.press("Walk")
            opened.status("5 pictures")
            assert opened.page.locator("#walk .frame").count() == 5
            opened.page.get_by_label("From one seed to the other").press("Home")
            assert opened.page.locator("#walk .caption >> visible=true").inner_text().startswith("t = 0.00")
    finally:
        (server.store / "walked.mar").unlink()  # the next start would restart for it


def test_a_classifier_text_and_words(browser: Browser, course_gateway: Gateway) -> None:
    with visiting(browser, course_gateway.url, "Others", "Classifier") as opened:  # nothing to draw with
        page = opened.page
        opened.choose("Model", "classifier-mnist")
        opened.press("Classify")
        assert opened.status("probability").startswith("7, ")
        assert page.locator("#labels .bars > div").count() == 10
        opened.tab("Text")
        opened.fill("Length", "12")
        opened.press("Write")
        opened.status("12 tokens")
        assert page.locator("#text .written span").count() >= 12
        opened.tab("Words")
        opened.press("King less man plus woman")
        assert "is to woman" in opened.status("is to")
        assert page.locator("#words svg circle").count() >= 10


def test_a_setting_of_a_job_that_is_wrong_is_refused_beside_its_input(drawing: Visit) -> None:
    drawing.tab("Train")
    drawing.fill("Learning rate", "-1")
    drawing.press("Train")
    assert "Learning rate" in drawing.status("must be above 0")
    assert "must be above 0" in drawing.page.locator(".refused").inner_text()


@pytest.mark.slow
@pytest.mark.timeout(4 * WAIT_S)
def test_a_job_learns_is_cancelled_goes_on_and_draws(drawing: Visit) -> None:
    drawing.page.set_default_timeout(2 * page_pictures.WAIT_MS)
    drawing.tab("Train")
    drawing.fill("Epochs", "3")
    drawing.fill("Batches an epoch", "10")
    drawing.fill("Serve as", "of-the-page")
    drawing.press("Train")
    drawing.status("waits|learns")
    drawing.press("Cancel")
    drawing.status("is cancelled")
    drawing.press("Draw with it")
    drawing.status("not served yet")
    drawing.press("Resume")
    drawing.status("is done\\.$")
    drawing.press("Draw with it")
    drawing.status("16 pictures by of-the-page")
    assert drawing.page.locator("#samples img").count() == 1
    drawing.tab("Draw")
    model = drawing.visible(drawing.page.get_by_label("Model", exact=True))

    def offered() -> int:
        model.click()
        drawing.page.get_by_role("option").first.wait_for()
        n = drawing.page.get_by_role("option", name="of-the-page").count()
        model.press("Escape")
        return n

    wait_until(offered, 1, 60)


def test_a_picture_of_the_page_is_as_wide_as_asked_and_has_few_colours(
    browser: Browser, gateway: Gateway
) -> None:
    png = page_pictures.reduced(page_pictures.shot(browser, gateway.url, "Draw", 400))
    with Image.open(io.BytesIO(png)) as picture:
        assert (picture.width, picture.mode) == (400, "P")
        assert picture.height > 900
