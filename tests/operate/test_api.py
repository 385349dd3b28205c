"""The two APIs of a server: the host's riddles in words, and a server that is not there."""

import json
import os
import socket
import threading
from pathlib import Path

import pytest
from real_server import free_ports
from stand_in import standing_in

from genserve.operate.api import ManagementError, Server, in_words, local_server
from genserve.operate.process import born


@pytest.mark.parametrize(
    ("status", "message", "meaning", "passed_on"),
    [  # messages as TorchServe 0.12.0 gave them
        (404, "Model not found: a", "there is no model a", 404),
        (404, "Model version: 2.0 does not exist for model: a", "a has no version 2.0", 404),
        (404, "Model version 2.0 does not exist for model a", "a has no version 2.0", 404),
        (404, "Model version: null does not exist for model: a", "a is half deleted", 409),
        (404, "Model not found at: x.mar", "no such file in its model store", 404),
        (404, "Given URL http://x/y.mar does not match any allowed URL(s)", "its model store only", 400),
        (409, "Model version 1.0 is already registered for model a", "registered already", 409),
        (403, "Cannot remove default version for model a", "2.0 is the default of a", 409),
        (400, "Model name is not defined.", "cannot read the file as an archive", 400),
        (500, "Failed to save model: a.mar", "cannot unpack the archive", 400),
        (500, "Failed to start workers for model a version: 2.0", "the workers do not start", 502),
        (405, "Requested method is not allowed, please refer to API document.", "enable_model_api", 403),
        (400, "Token Authorization failed. Token either incorrect, expired", "wants a token", 403),
        (500, "something new", "the server refuses: 500, something new", 502),
    ],
)
def test_a_riddle_of_the_host_is_said_in_words(
    status: int, message: str, meaning: str, passed_on: int
) -> None:
    text, number = in_words(status, message, ("a", "2.0"))
    assert meaning in text
    assert number == passed_on


def test_a_refusal_carries_the_words_and_a_status_to_pass_on() -> None:
    with standing_in({}) as host:
        with pytest.raises(ManagementError, match=r"^there is no model a/b: .*models list") as error:
            Server(management=host.url).call("GET", "a/b")
        assert error.value.status == 404
        assert host.calls == ["GET /models/a%2Fb"]  # one word of the path, whatever is in it


def test_a_server_that_is_not_there_is_said_so() -> None:
    port = free_ports(1)
    with pytest.raises(
        ManagementError, match=f"http://127.0.0.1:{port} does not answer .*is the server up"
    ) as e:
        Server(management=f"http://127.0.0.1:{port}").call("GET")
    assert e.value.status == 503


def test_what_is_no_management_api_is_said_so() -> None:
    with (
        standing_in({"GET /models": (200, b"<html>")}) as host,
        pytest.raises(ManagementError, match="is no management API: it answers 200 without JSON"),
    ):
        Server(management=host.url).call("GET")


def test_an_api_on_a_unix_socket_is_reached(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"models":[]}')

        thread = threading.Thread(target=answer)
        thread.start()
        assert Server(management=f"unix:{path}").call("GET") == {"models": []}
        thread.join()


def test_the_files_of_a_server_are_in_reach_through_its_home_if_it_has_the_port(tmp_path: Path) -> None:
    ours = {"pid": os.getpid(), "born": born(os.getpid()), "port": 7000, "store": "/s", "temporary": "/t"}
    (tmp_path / "server.json").write_text(json.dumps(ours))
    near = local_server(7000, tmp_path)
    assert (near.store, near.logs, near.temporary) == (Path("/s"), tmp_path / "logs", Path("/t"))
    assert near.management == "http://127.0.0.1:7001"
    for far in (local_server(7100, tmp_path), local_server(7000), local_server(7000, tmp_path, "10.0.0.1")):
        assert far.store is None
    record = json.loads((tmp_path / "server.json").read_text())
    (tmp_path / "server.json").write_text(json.dumps(record | {"management": "/t/management.sock"}))
    assert local_server(7000, tmp_path).management == "unix:/t/management.sock"
