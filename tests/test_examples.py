"""The examples against a real server, as a reader would run them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from real_server import ROOT, Server


@pytest.mark.server
@pytest.mark.parametrize(
    ("name", "words", "pictures", "output"),
    [
        ("grid", [], {"sevens.png": (230, 230)}, "sevens.png: seed 1, "),
        ("stream", [], {f"frame-{k:02}.png": (58, 58) for k in range(8)}, "frame-00.png: noise level "),
        ("restore", [str(ROOT / "docs/images/noisy.png")], {"restored.png": None}, "of the training images"),
        ("bulk", ["20"], {f"bulk/{k:05}.png": (28, 28) for k in range(1, 21)}, "20 pictures in bulk/"),
    ],
)
def test_an_example_does_what_it_says(
    server: Server,
    tmp_path: Path,
    name: str,
    words: list[str],
    pictures: dict[str, tuple[int, int] | None],
    output: str,
) -> None:
    command = [sys.executable, str(ROOT / f"examples/{name}.py"), f"http://127.0.0.1:{server.port}", *words]
    direct = os.environ | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=direct)
    assert done.returncode == 0, done.stderr
    assert output in done.stdout
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")} == set(pictures)
    for file, size in pictures.items():
        with Image.open(tmp_path / file) as picture:
            assert size in (None, picture.size)
