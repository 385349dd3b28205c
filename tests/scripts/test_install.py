"""scripts/install names the download and the disk only where torch is still to come."""

from pathlib import Path

from program import imported


def test_an_environment_has_torch_or_not(tmp_path: Path) -> None:
    install = imported("scripts/install")
    assert not install.torch_is_there(tmp_path)
    package = tmp_path / "lib" / "python3.11" / "site-packages" / "torch"
    package.mkdir(parents=True)
    assert not install.torch_is_there(tmp_path)  # cut off
    (package / "__init__.py").touch()
    assert install.torch_is_there(tmp_path)
