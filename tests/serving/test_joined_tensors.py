"""Several requests as tensors, KServe's second protocol: their one answer is tensors, too."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from joined_bodies import SEVEN, answered, content, running
from loading import service as shipped
from one_gray import SPEC, gray
from tensors_sent import tensor

from genserve.serving.joined import JoiningService
from genserve.serving.replies import Reply
from genserve.serving.requests.diffusion import DiffusionRequest
from genserve.serving.requests.pictures import PictureRequest

FIELDS = {"num_samples": 2, "steps": 3, "sampler": "ddim"}


@pytest.fixture
def service() -> Iterator[JoiningService]:
    service = JoiningService(SPEC, gray, DiffusionRequest, running())
    yield service
    service.close()


def tensors_of(reply: Reply) -> dict[str, np.ndarray]:
    """Return the outputs as arrays, whose sizes are checked by that."""
    assert reply.status == 200, reply.body
    kinds = {"BYTES": object, "UINT8": np.uint8, "INT64": np.int64, "FP64": np.float64}
    return {
        one["name"]: np.array(one["data"], kinds[one["datatype"]]).reshape(one["shape"])
        for one in content(reply)["outputs"]
    }


def test_a_batch_of_tensors_is_answered_by_tensors(service: JoiningService) -> None:
    body = {
        "id": "42",
        "inputs": [
            tensor("seed", [5, 6, 2**63 - 1]),
            tensor("label", ["dark", "light", "dark"], "BYTES"),
            tensor("num_samples", [2]),
            tensor("steps", [3]),
            tensor("sampler", ["ddim"], "BYTES"),
        ],
    }
    answer = answered(service, body)
    head = content(answer)
    assert (head["model_name"], head["model_version"], head["id"]) == ("served", "2.0", "42")
    outputs = tensors_of(answer)
    assert {name: array.shape for name, array in outputs.items()} == {
        "png": (3, 2), "seed": (3,), "nfe": (3,), "index": (3, 2), "label": (3, 2), "settings": (3,)
    }  # fmt: skip
    assert outputs["seed"].tolist() == [5, 6, 2**63 - 1]
    assert outputs["label"].tolist() == [[0, 0], [1, 1], [0, 0]]
    for k, (seed, label) in enumerate([(5, "dark"), (6, "light"), (2**63 - 1, "dark")]):
        (alone,) = service.answers([FIELDS | {"seed": seed, "label": label, "format": "json"}])
        assert [row["png"] for row in content(alone)["images"]] == outputs["png"][k].tolist()
        assert content(alone)["settings"] == json.loads(outputs["settings"][k])


def test_pixels_are_a_tensor_and_files_are_bytes(service: JoiningService) -> None:
    fields = FIELDS | {"seed": 1, "format": "npy"}
    inputs = [
        tensor(name, [value], "BYTES" if isinstance(value, str) else "INT64")
        for name, value in fields.items()
    ]
    outputs = tensors_of(answered(service, {"inputs": inputs}))
    assert outputs.keys() == {"pixels", "seed", "nfe"}
    assert outputs["pixels"].shape == (1, 2, 4, 4, 1)
    assert np.array_equal(outputs["pixels"][0], np.load(io.BytesIO(service.answers([fields])[0].body)))
    inputs[-1]["data"] = ["gif"]
    answer = content(answered(service, {"inputs": inputs, "outputs": [{"name": "file"}, {"name": "png"}]}))
    (file,) = answer["outputs"]
    assert (file["name"], file["parameters"]) == ("file", {"content_type": "image/gif"})
    assert base64.b64decode(file["data"][0]) == service.answers([fields | {"format": "gif"}])[0].body
    described = tensors_of(answered(service, {"inputs": [tensor("task", ["describe"], "BYTES")]}))
    assert json.loads(described["description"][0])["name"] == "gray"


@pytest.mark.parametrize(
    ("fields", "outputs"),
    [
        ({"images": SEVEN}, {"energy", "rank"}),
        ({"images": SEVEN, "task": "refine", "steps": 1}, {"energy", "rank", "energy_before", "rank_before"}),
        ({"task": "refine", "images": SEVEN, "steps": 1, "sampler": "mala"}, {"acceptance"}),
    ],
)
def test_what_an_energy_says_is_numbers(fields: dict[str, Any], outputs: set[str], tmp_path: Path) -> None:
    energy = shipped(tmp_path, "energy-mnist", precision="fp32")
    try:
        inputs = [tensor(name, [v], "INT64" if type(v) is int else "BYTES") for name, v in fields.items()]
        inputs[0] |= {"data": inputs[0]["data"] * 2, "shape": [2]} if "task" not in fields else {}
        arrays = tensors_of(answered(energy, {"inputs": inputs}))
        assert outputs <= arrays.keys() <= PictureRequest.outputs.keys()
        for name in outputs:
            assert arrays[name].dtype == np.float64
        (alone,) = energy.answers([fields | {"format": "json"}])
        if fields.get("task") is None:  # nothing is drawn
            assert arrays["energy"][1].tolist() == [content(alone)["images"][0]["energy"]]
            assert not arrays.keys() & {"png", "label", "seed"}
    finally:
        energy.close()


def test_a_batch_fails_together_and_the_message_says_which(service: JoiningService) -> None:
    body = {"inputs": [tensor("seed", [1, 2, 3]), tensor("steps", [900, 900, 0]), tensor("num_samples", [1])]}
    reply = answered(service, body)
    assert reply.status == 400
    assert content(reply) == {
        "error": "steps: request 2 of the batch: out of range (allowed: 1 to 1000)",
        "field": "steps",
        "message": "request 2 of the batch: out of range",
        "allowed": "1 to 1000",
    }
    assert not service.open
    assert not len(service.lanes._engine)
    differ = answered(service, {"inputs": [tensor("seed", [1, 2]), tensor("num_samples", [1, 2])]})
    assert (differ.status, content(differ)["field"]) == (400, "num_samples")
    one = answered(service, {"inputs": [tensor("steps", [0])]})
    assert content(one)["message"] == "out of range"
