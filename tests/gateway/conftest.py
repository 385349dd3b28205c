"""Gateways in front of the servers that all tests share."""

from collections.abc import Iterator

import pytest
from real_gateway import Gateway, beside
from real_server import Server


@pytest.fixture(scope="session")
def gateway(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with beside(server, tmp_path_factory.mktemp("gateway")).running() as gateway:
        yield gateway


@pytest.fixture(scope="session")
def course_gateway(course: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway in front of the server of the course's families."""
    with beside(course, tmp_path_factory.mktemp("course")).running() as gateway:
        yield gateway
