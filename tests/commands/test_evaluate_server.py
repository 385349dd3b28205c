"""An evaluation of what a server draws, and mistakes in what is asked of an evaluation."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import numpy as np
import pytest
from evaluating import evaluate, evaluated
from loading import service
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty directory, where no data are."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def server(diffusion: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a service over the same model, behind HTTP as it comes with Python."""
    model = service(tmp_path / "archive", diffusion, budget=64, lanes=1, precision="fp32")
    turn = Lock()  # the service is for one thread at a time

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            fields = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with turn:
                (reply,) = model.answers([fields])
            self.send_response(reply.status)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as listening:
        thread = Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}/predictions/diffusion"
        listening.shutdown()
        thread.join()


def test_a_server_draws_what_its_run_draws(server: str, classifier: Path, diffusion: Path) -> None:
    common = ["--classifier", classifier, "--n", "20", "--seed", "3", "--settings", "ddim:3:eta=0.5"]
    by_run = evaluated("--run", diffusion, *common, "--output", "here.json")
    by_server = evaluated("--server", server, *common, "--output", "there.json")
    assert by_server["weights"] == by_run["weights"]
    assert by_server["rows"][-1]["nfe"] == by_run["rows"][-1]["nfe"] == 3
    shown = [
        np.asarray(Image.open(f"{of}-ddim-3-eta-0.5-samples.png")).astype(int) for of in ("here", "there")
    ]
    assert shown[0].std() > 20
    assert np.abs(shown[0] - shown[1]).max() <= 1
    for key in ("frechet_distance", "kernel_distance", "copy_distance"):
        assert by_server["rows"][-1][key] == pytest.approx(by_run["rows"][-1][key], rel=1e-2)
    assert not (diffusion / "evaluations.jsonl").read_text().count(server)
    with pytest.raises(ValueError, match="sampler"):
        evaluate("--server", server, *common[:-1], "euler:3")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--run", "nowhere"], "nowhere is no run directory: it has no config.json"),
        (["--images", "nowhere.npy"], "there is no file or folder nowhere.npy"),
        (["--images", "wrong.npy"], "must hold uint8 (N, 8, 8, 1), it holds uint8 (9, 7, 8, 1)"),
        (["--images", "text.npy"], "text.npy is no .npy file of images"),
        (["--images", "grid"], "grid/2.png: 18 x 8 pixels, not 8 x 8"),
        (["--images", "empty"], "empty/1.png: an empty file"),
        (["--images", "mixed"], "mixed has 1 picture beside class folders (1.png) and 1 in them (a/2.png)"),
        (["--settings", "heun:9", "euler:10"], "setting 'euler:10': sampler: this model is not"),
        (["--settings", "heun:9", "heun:9"], "settings must differ, got heun:9 heun:9"),
        (["--images", "grid", "--repeats", "2"], "neither settings nor repeats would draw them again"),
        (["--images", "grid", "--server", "http://127.0.0.1:1"], "images or server, not both"),
        (["--repeats", "0"], "batch_size and repeats above 0"),
        (["--write-stats", "s.npy"], "must be a .npz file"),
        (["--write-stats", "s.npz", "--repeats", "2"], "give one setting and no repeats"),
        (["--against", "nowhere.npz"], "there is no file nowhere.npz"),
        (["--against", "wide.npz"], "wide.npz holds statistics of 2048 features, the network has 24"),
        (["--server", "http://127.0.0.1:1"], "http://127.0.0.1:1 does not answer"),
        (["--n", "5"], "n must be above 5"),
        (["--precision", "fp16"], "precision must be one of auto, fp32, bf16, int8, got 'fp16'"),
        (["--backend", "onnx"], "backend must be one of torchscript, openvino, got 'onnx'"),
        (["--precision", "int8"], "precision int8 needs backend openvino, got 'torchscript'"),
        (["--inception-weights", "nowhere.pth"], "there is no file nowhere.pth"),
        (["--inception-weights", "text.npy"], "text.npy is not weights-inception-2015-12-05-6726825d.pth"),
        (["--classifier", "grid"], "grid is no run directory"),
    ],
)
def test_what_is_wrong_is_said(classifier: Path, diffusion: Path, flags: list[str], message: str) -> None:
    np.save("wrong.npy", np.zeros((9, 7, 8, 1), np.uint8))
    np.savez("wide.npz", mu=np.zeros(2048, np.float32), sigma=np.zeros((2048, 2048), np.float32))
    Path("text.npy").write_text("no array")
    for folder in ("grid", "empty", "mixed/a"):
        Path(folder).mkdir(parents=True)
    Path("empty/1.png").touch()
    for file, width in (("mixed/1", 8), ("mixed/a/2", 8), ("grid/1", 8), ("grid/2", 18)):
        Image.new("L", (width, 8)).save(f"{file}.png")
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
        evaluate("--run", diffusion, "--classifier", classifier, *flags)


def test_from_a_shell_a_mistake_is_one_sentence(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts/evaluate.py"), "--images", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: --images: there is no file or folder nowhere\n"
