"""A stand-in for the host's management API, for answers that a real host cannot be made to give on demand."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any]  # status, and what is sent as JSON; bytes are sent as they are


@dataclass
class StandIn:
    """Answers by method and path, or by a function of the query; every request is noted."""

    answers: dict[str, Answer | Callable[[], Answer]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, call: str) -> Answer:
        self.calls.append(call)
        answer = self.answers.get(call.partition("?")[0], (404, {"message": f"Model not found: {call}"}))
        return answer() if callable(answer) else answer


def version(
    name: str = "a", number: str = "1.0", *, ready: int = 1, loading: int = 0, queued: int = 0
) -> dict[str, Any]:
    """Return what the host says of a version; no process has its workers' numbers."""
    states = ["READY"] * ready + ["UNLOADING"] * loading
    return {
        "modelName": name,
        "modelVersion": number,
        "modelUrl": f"{name}.mar",
        "minWorkers": len(states),
        "continuousBatching": True,
        "workers": [
            {"id": str(9000 + k), "status": state, "pid": 2**22 + k, "gpu": False}
            for k, state in enumerate(states)
        ],
        "jobQueueStatus": {"remainingCapacity": 100, "pendingRequests": queued},
    }


@contextlib.contextmanager
def standing_in(answers: dict[str, Answer | Callable[[], Answer]]) -> Iterator[StandIn]:
    """Answer on a free port of loopback until the block ends."""
    host = StandIn(dict(answers))

    class Handler(BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline()
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, value = host.answer(f"{self.command} {self.path}")
            body = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        host.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield host
        finally:
            server.shutdown()
            thread.join()
