"""A Redis that cannot be used ends a gateway in one line."""

import socket

import pytest

from genserve.commands import gateway
from genserve.gateway import sharing
from genserve.gateway.sharing import check_redis


def test_without_the_package_the_gateway_ends_in_one_line_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sharing, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as end:
        gateway.run(["--redis", "redis://127.0.0.1:6379"])
    assert end.value.code == "error: --redis needs a package that is not installed: pip install redis"


@pytest.fixture
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "find_spec", lambda name: object())


@pytest.mark.usefixtures("_installed")
def test_a_redis_that_does_not_answer_is_named_without_its_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        check_redis(f"redis://:secret@127.0.0.1:{port}/0")
    with pytest.raises(SystemExit) as end:
        gateway.run(["--redis", f"redis://:secret@127.0.0.1:{port}/0"])
    line = str(end.value.code)
    assert line.startswith(f"error: --redis: 127.0.0.1:{port} does not answer")
    assert "secret" not in line
    assert "\n" not in line


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize(
    "url", ["", "127.0.0.1", "nonsense://127.0.0.1", "redis://", "redis://a:x", "redis://[", "memory://a"]
)
def test_a_url_of_nothing_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="--redis"):
        check_redis(url)
