"""An exported model, as an archive carries it."""

from pathlib import Path

import pytest
from real_server import ROOT

from genserve.runs.export import export


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of weights/diffusion-mnist as exported; read them only."""
    folder = tmp_path_factory.mktemp("exported")
    export(ROOT / "weights/diffusion-mnist", folder)
    return folder
