"""A crowd at a real address: on time, whether the server keeps up or not."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from genserve.simulation.crowd import asked, timings
from genserve.simulation.traffic import Arrival


class Answers(BaseHTTPRequestHandler):
    """Takes `steps` hundredths of a second; 13 images are refused for now, 14 for good."""

    protocol_version = "HTTP/1.1"
    one_at_a_time = threading.Lock()

    def do_POST(self) -> None:
        fields = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.one_at_a_time:
            time.sleep(fields["steps"] / 100)
        self.send_response({13: 503, 14: 400}.get(fields["num_samples"], 200))
        self.send_header("Content-Length", "2")
        if self.path == "/timed":
            self.send_header("Server-Timing", "queue;dur=0.1, sample;dur=9.0, encode;dur=0.5")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_requests_are_sent_when_they_are_due_though_the_server_lags(address: str) -> None:
    """Three at once, a tenth of a second each, one after the other."""
    outcomes = asked(address, [Arrival(0.1, 1, 10)] * 3)
    assert sorted(one.seconds for one in outcomes) == pytest.approx([0.1, 0.2, 0.3], abs=0.09)
    assert [one.status for one in outcomes] == [200] * 3


def test_a_refusal_for_now_is_counted_and_one_for_good_is_an_error(address: str) -> None:
    outcomes = asked(address, [Arrival(0.0, 1, 1), Arrival(0.01, 13, 1)])
    assert sorted(one.status for one in outcomes) == [200, 503]
    with pytest.raises(ValueError, match="answers 400"):
        asked(address, [Arrival(0.0, 14, 1)])
    with pytest.raises(ValueError, match="answered none of 1 requests"):
        asked(address, [Arrival(0.0, 13, 1)])


def test_a_server_that_is_not_there_answers_none() -> None:
    with pytest.raises(ValueError, match="answered none of 2 requests"):
        asked("http://127.0.0.1:9/predictions/none", [Arrival(0.0, 1, 1)] * 2)


def test_timings_are_the_clients_and_the_workers(address: str) -> None:
    taken = timings(f"{address}/timed", 3)
    assert [inside for _, inside in taken] == [9.5] * 3
    assert all(0.01 <= seconds < 0.5 for seconds, _ in taken)
    with pytest.raises(ValueError, match="answers 200"):
        timings(address, 1)
