"""The shipped energies in this process, loaded once."""

import pytest
from loading import service

from genserve.serving.service import Service


@pytest.fixture(scope="package")
def energy(tmp_path_factory: pytest.TempPathFactory) -> Service:
    return service(tmp_path_factory.mktemp("energy"), "energy-mnist")


@pytest.fixture(scope="package")
def classic(tmp_path_factory: pytest.TempPathFactory) -> Service:
    return service(tmp_path_factory.mktemp("pcd"), "energy-mnist-pcd")
