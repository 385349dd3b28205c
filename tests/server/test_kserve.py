"""KServe's protocols on a real TorchServe, spoken by clients that are not ours."""

import base64
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image
from real_server import ROOT, Server

pytestmark = pytest.mark.server
SEVEN = base64.b64encode((ROOT / "docs" / "images" / "seven.png").read_bytes()).decode()

ABSENT = (
    "/v1/models", "/v1/models/diffusion", "/v2", "/v2/health/live", "/v2/health/ready",
    "/v2/models/diffusion", "/v2/models/diffusion/ready", "/v2/models/diffusion/versions/1.0",
)  # fmt: skip


def given(name: str, values: Any, datatype: str = "INT64") -> triton.InferInput:
    array = np.array(values, np.int64 if datatype == "INT64" else np.object_)
    tensor = triton.InferInput(name, list(array.shape), datatype)
    return tensor.set_data_from_numpy(array, binary_data=False)


def drawn(server: Server, seed: int, **fields: Any) -> Any:
    """Return the answer to a plain request for one image."""
    body = {"seed": seed, "num_samples": 1, "format": "json"} | fields
    with server.client() as client:
        answer = client.post("/predictions/diffusion", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_instances_are_answered_in_order_and_as_they_are_alone(server: Server) -> None:
    instances = [{"seed": seed, "num_samples": 1} for seed in (1, 2, 3)]
    with server.client() as client:
        for model in ("diffusion", "diffusion-batched"):
            answer = client.post(
                f"/v1/models/{model}:predict", json={"instances": [*instances, {"seed": -1}]}
            )
            assert answer.status_code == 200, answer.text
            *predictions, wrong = answer.json()["predictions"]
            assert wrong["field"] == "seed"
            assert [one["seed"] for one in predictions] == [1, 2, 3]
            assert predictions[1]["images"][0]["png"] == drawn(server, 2)["images"][0]["png"]
        none = client.post("/v1/models/diffusion:predict", json={"instances": [{"seed": -1}, {"steps": 0}]})
        assert (none.status_code, none.json()["field"]) == (400, "seed")
        watching = client.post("/v1/models/diffusion:predict", json={"instances": [{"stream": "jsonl"}]})
        assert (watching.status_code, watching.json()["field"]) == (400, "stream")


def test_triton_s_client_sends_and_reads_tensors(server: Server) -> None:
    client = triton.InferenceServerClient(f"127.0.0.1:{server.port}")
    try:
        inputs = [given("seed", [1, 2]), given("label", ["7", "3"], "BYTES"), given("num_samples", [1])]
        result = client.infer("diffusion", inputs, request_id="7")
        png, seed, label = (result.as_numpy(name) for name in ("png", "seed", "label"))
        assert (png.shape, seed.tolist(), label.tolist()) == ((2, 1), [1, 2], [[7], [3]])
        assert result.get_response()["id"] == "7"
        assert result.get_response()["model_name"] == "diffusion"
        assert result.get_response()["model_version"] == "1.0"
        for k in range(2):
            alone = drawn(server, k + 1, label=int(label[k, 0]))["images"][0]["png"]
            assert png[k, 0] in (alone, alone.encode())
        pixels = client.infer(
            "diffusion",
            [*inputs, given("format", ["npy"], "BYTES")],
            outputs=[triton.InferRequestedOutput("pixels")],
        ).as_numpy("pixels")
        assert (pixels.shape, pixels.dtype) == ((2, 1, 28, 28, 1), np.uint8)
        picture = Image.open(io.BytesIO(base64.b64decode(png[0, 0])))
        assert np.array_equal(np.array(picture), pixels[0, 0, :, :, 0])
        energy = client.infer("energy", [given("images", [SEVEN], "BYTES")]).as_numpy("energy")
        assert (energy.shape, energy.dtype) == ((1, 1), np.float64)
        with pytest.raises(
            triton.InferenceServerException, match=r"seed: request 1 of the batch: out of range"
        ):
            client.infer("diffusion", [given("seed", [1, -2])])
    finally:
        client.close()


@pytest.fixture(scope="module")
def kserve_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with KServe's client, which does not fit into ours: it wants an older psutil."""
    folder = tmp_path_factory.mktemp("kserve") / "venv"
    uv, python = Path(sys.executable).parent / "uv", folder / "bin" / "python"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    install = [uv, "pip", "install", "--quiet", "--python", python, "--require-hashes"]
    subprocess.run([*install, "-r", ROOT / "requirements-kserve.txt"], check=True)
    return python


def test_kserve_s_own_client_gets_predictions_explanations_and_tensors(
    server: Server, kserve_python: Path
) -> None:
    done = subprocess.run(
        [kserve_python, ROOT / "tests/helpers/kserve_calls.py", f"http://127.0.0.1:{server.port}"],
        input=SEVEN, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    first, second, wrong = result["predicted"]
    assert first["images"][0]["png"] == drawn(server, 1)["images"][0]["png"]
    assert (second["seed"], wrong["field"]) == (2, "seed")
    assert result["explained"][0]["settings"]["task"] == "explain"
    assert result["tensors"]["png"] == [first["images"][0]["png"], second["images"][0]["png"]]
    assert (result["id"], result["model"]) == ("7", "diffusion")
    assert "request 1 of the batch" in result["refused"]


def test_the_host_has_none_of_the_protocols_other_addresses(server: Server) -> None:
    """docs/api.md says so, and deploy/nginx answers some of them."""
    with server.client() as client:
        for path in ABSENT:
            assert client.get(path).status_code == 404, path
        assert client.post("/v2/models/diffusion/versions/1.0/infer", json={"inputs": []}).status_code == 404
    management = httpx.get(f"{server.management}/v1/models/diffusion", timeout=20)
    assert management.json() == {"name": "diffusion", "ready": True}
