"""The clients of `genserve chaos` note what goes wrong: else its tests could not fail."""

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from PIL import Image

from genserve.commands.chaos import table
from genserve.commands.crowd import GONE, Crowd, Noted, alike, counts, settings
from genserve.operate.rolling import ROUNDING


def picture(gray: int) -> str:
    """Return a PNG of 2 x 2 pixels, as text."""
    file = io.BytesIO()
    Image.new("L", (2, 2), gray).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


RIGHT = (picture(100),)
PICTURE = {"images": [{"png": RIGHT[0]}]}


class Answers(BaseHTTPRequestHandler):
    """Answers with what the test has set last."""

    status = 200
    body: Any = PICTURE

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        content = json.dumps(self.body).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Answers, "status", 200)
    monkeypatch.setattr(Answers, "body", PICTURE)
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def after(address: str, seconds: float = 0.3) -> Crowd:
    """Return what a crowd has noted after a while."""
    expected = [(fields, RIGHT) for fields in settings(3)]
    with Crowd(address, expected, patient=1, plain=1) as crowd:
        time.sleep(seconds)
    return crowd


def test_right_pictures_are_noted_as_right(address: str) -> None:
    crowd = after(address)
    assert crowd.asked_again
    assert {noted.status for noted in crowd.asked_once} == {"200"}
    assert (crowd.wrong, crowd.lost) == (0, [])


@pytest.mark.parametrize("png", [picture(100 + ROUNDING + 1), "damaged", ""])
def test_a_wrong_picture_is_wrong_for_both_kinds_of_clients(address: str, png: str) -> None:
    Answers.body = {"images": [{"png": png}]}
    crowd = after(address)
    assert crowd.wrong == len(crowd.asked_again) + len(crowd.asked_once) > 1


@pytest.mark.parametrize("body", [{}, [], {"images": [{}]}, {"images": []}])
def test_an_answer_without_the_picture_is_wrong(address: str, body: Any) -> None:
    Answers.body = body
    expected = [(fields, RIGHT) for fields in settings(3)]
    with Crowd(address, expected, patient=0, plain=1) as crowd:
        time.sleep(0.3)
    assert crowd.wrong == len(crowd.asked_once) > 1


def test_pictures_are_alike_but_for_rounding() -> None:
    assert alike((picture(100 + ROUNDING),), RIGHT)
    assert not alike((picture(100 + ROUNDING + 1),), RIGHT)
    assert not alike((), RIGHT)


def test_a_refusal_is_a_loss_for_who_asks_again_and_a_status_for_who_does_not(address: str) -> None:
    Answers.status, Answers.body = 400, {"error": "no", "field": "steps"}
    crowd = after(address)
    assert len(crowd.lost) == 1
    assert {noted.status for noted in crowd.asked_once} == {"400"}


def test_a_server_that_is_not_there_is_no_answer() -> None:
    expected = [(fields, RIGHT) for fields in settings(3)]
    with Crowd("http://127.0.0.1:9", expected, patient=0, plain=1) as crowd:
        time.sleep(0.3)
    assert {noted.status for noted in crowd.asked_once} == {GONE}


def test_the_table_says_what_came_in_each_trouble() -> None:
    noted = [Noted(1.0, 0.5, "200"), Noted(2.0, 1.5, "503"), Noted(3.5, 0.2, "200")]
    lines = table([("killed", 0.0, 3.0), ("rolled", 3.0, 4.0)], noted)
    assert lines[2:] == [
        "| killed | 1 | 1 x 200, 1 x 503 | 1.5 s |",
        "| rolled | 1 | 1 x 200 | 0.2 s |",
    ]
    assert counts([]) == "none"
