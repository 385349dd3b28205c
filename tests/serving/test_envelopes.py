"""Fields as other servers' clients send them: TorchServe's `data`, KServe's `instances` and `inputs`."""

import base64
import json
import time
from functools import partial
from typing import Any

import pytest

from genserve.serving import rows
from genserve.serving.fields import BadRequest, parse
from genserve.serving.requests.diffusion import DiffusionRequest
from genserve.serving.requests.energy import EnergyRequest

fields_of = partial(rows.fields_of, kind=EnergyRequest)

FIELDS = {"num_samples": 4, "seed": 1, "eta": 0.5, "sampler": "ddim", "label": [1, 2, 3, 4], "stream": True}
GIF = b"GIF89a and so on"
TEXT = base64.b64encode(GIF).decode()


def tensor(name: str, data: Any, datatype: str = "INT64", shape: Any = None) -> dict[str, Any]:
    return {
        "name": name,
        "shape": [len(data)] if shape is None else shape,
        "datatype": datatype,
        "data": data,
    }


TENSORS = [
    tensor("num_samples", [4]),
    tensor("seed", [1], shape=[]),
    tensor("eta", [0.5], "FP32", [1, 1]),
    tensor("sampler", ["ddim"], "BYTES"),
    tensor("label", [[1], [2], [3], [4]], "INT32", [4, 1]),
    tensor("stream", [True], "BOOL"),
]


@pytest.mark.parametrize(
    "row",
    [
        {"body": {"data": FIELDS}},
        {"body": {"data": json.dumps(FIELDS)}},
        {"body": bytearray(json.dumps({"data": FIELDS}).encode())},
        {"data": bytearray(json.dumps(FIELDS).encode())},  # multipart, gRPC
        {"data": json.dumps(FIELDS)},  # a part sent as text/plain
        {"data": FIELDS},  # a part sent as application/json, which the host parses
        {"body": {"instances": [FIELDS]}},
        {"body": {"inputs": TENSORS}},
        {"body": {"inputs": TENSORS, "id": "42", "parameters": {"binary_data_output": True}, "outputs": []}},
        {"data": json.dumps({"inputs": TENSORS}).encode()},
        {"body": {"data": {"instances": [FIELDS]}}},
        {"body": {"instances": [FIELDS], "seed": None, "data": None, "inputs": None}},
    ],
)
def test_fields_in_an_envelope_are_the_fields_without_it(row: dict[str, Any]) -> None:
    assert fields_of(row, {}) == (FIELDS, False)


@pytest.mark.parametrize("task", ["score", "explain"])
def test_data_holds_a_picture_as_a_body_does(task: str) -> None:
    for row in (
        {"data": bytearray(GIF), "task": task.encode()},
        {"data": TEXT.encode(), "task": task.encode()},
        {"body": {"data": TEXT, "task": task}},
        {"body": {"data": f"data:image/gif;base64,{TEXT}", "task": task}},
    ):
        request = parse(EnergyRequest, *fields_of(row, {}))
        assert request.task == task
        assert request.images == GIF


def test_an_explanation_takes_envelopes_too() -> None:
    for body, images in (({"data": TEXT}, GIF), ({"instances": [{"images": TEXT}]}, TEXT)):
        fields = fields_of({"body": body}, {"explain": "True"})
        assert fields == ({"images": images, "task": "explain"}, False)


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({"data": FIELDS, "seed": 2}, "data", r"beside it \(seed\)"),
        ({"instances": [FIELDS], "seed": 2}, "instances", r"beside it \(seed\)"),
        ({"inputs": TENSORS, "seed": 2}, "inputs", r"beside it \(seed\)"),
        ({"inputs": TENSORS, "instances": [FIELDS]}, "instances", r"beside it \(inputs\)"),
        ({"data": FIELDS, "instances": [FIELDS]}, "data", r"beside it \(instances\)"),
        ({"instances": [FIELDS], "id": "42"}, "instances", r"beside it \(id\)"),
        ({"data": TEXT, "images": TEXT}, "images", "others beside it"),
        ({"data": [FIELDS]}, "data", "not a JSON object"),
        ({"data": 4}, "data", "not a JSON object"),
        ({"data": True}, "data", "not a JSON object"),
        ({"data": "[1]"}, "data", "not a JSON object"),
        ({"data": '{"seed": '}, "data", "not JSON"),
        ({"data": ""}, "data", "empty"),
        ({"data": "a b"}, "data", "spaces"),
        ({"data": "AAAA"}, "data", "not a JSON object"),
        ({"data": {"data": FIELDS}}, "data", "no such field"),
        ({"data": {"colour": 1}}, "colour", "no such field"),
        ({"data": {"seed": -1}}, "seed", "out of range"),
        ({"instances": []}, "instances", "0 instances"),
        ({"instances": [FIELDS, FIELDS]}, "instances", "2 instances"),
        ({"instances": FIELDS}, "instances", "not a list"),
        ({"instances": [[1, 2]]}, "instances", "not a JSON object"),
        ({"instances": [{"seed": "1"}]}, "seed", "whole number"),
        ({"inputs": FIELDS}, "inputs", "not a list"),
        ({"inputs": [1]}, "inputs", "not a list"),
        ({"inputs": [{"shape": [1], "datatype": "INT64", "data": [1]}]}, "inputs", "without a name"),
        ({"inputs": [tensor("", [1])]}, "inputs", "without a name"),
        ({"inputs": [tensor("seed", [1]), tensor("seed", [2])]}, "seed", "two inputs"),
        ({"inputs": [tensor("seed", [1], "INT7")]}, "seed", "no such datatype"),
        ({"inputs": [tensor("seed", [1], [])]}, "seed", "no such datatype"),  # type: ignore[arg-type]
        ({"inputs": [tensor("seed", ["1"])]}, "seed", "not INT64"),
        ({"inputs": [tensor("seed", [True])]}, "seed", "not INT64"),
        ({"inputs": [tensor("seed", [1.0])]}, "seed", "not INT64"),
        ({"inputs": [tensor("seed", [None])]}, "seed", "not INT64"),
        ({"inputs": [tensor("seed", [1.0], "FP32")]}, "seed", "not a whole number"),
        ({"inputs": [tensor("seed", ["1"], "BYTES")]}, "seed", "not a whole number"),
        ({"inputs": [tensor("seed", [1, 2])]}, "seed", "not a whole number"),
        ({"inputs": [tensor("seed", [1], shape=[2])]}, "seed", "do not fill its shape"),
        ({"inputs": [tensor("label", [1, 2, 3, 4], shape=[2, 2])]}, "label", "do not fill its shape"),
        ({"inputs": [tensor("seed", [1], shape="1")]}, "seed", "its shape"),
        ({"inputs": [tensor("seed", [1], shape=[True])]}, "seed", "its shape"),
        ({"inputs": [tensor("seed", [1], shape=[-1])]}, "seed", "its shape"),
        ({"inputs": [{"name": "seed", "shape": [1], "datatype": "INT64"}]}, "seed", "not a list"),
        ({"inputs": [tensor("seed", [1]) | {"dtype": "INT64"}]}, "seed", "no dtype"),
        ({"inputs": [tensor("colour", [1])]}, "colour", "no such field"),
        ({"inputs": [tensor("c" * 500, [1])]}, "c" * 40, "no such field"),
        (
            {"inputs": [tensor("seed", json.loads("[" * 900 + "]" * 900), shape=[1])]},
            "seed",
            "not INT64",
        ),
        ({"inputs": [tensor("seed", [1], shape=[1] * 5)]}, "seed", "5 dimensions"),
    ],
)
def test_what_is_wrong_in_an_envelope_is_named(body: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message) as caught:
        parse(DiffusionRequest, *fields_of({"body": body}, {}))
    assert (caught.value.field, caught.value.status) == (field, 400)
    assert caught.value.allowed
    assert len(caught.value.body()) < 1000


def test_fields_beside_data_in_a_form_are_refused() -> None:
    with pytest.raises(BadRequest, match="beside it") as caught:
        fields_of({"data": b'{"seed": 1}', "steps": b"4"}, {})
    assert caught.value.field == "data"


def test_binary_tensors_are_told_how_to_come() -> None:
    with pytest.raises(BadRequest, match="binary") as caught:
        fields_of({"body": bytearray(b'{"inputs": []}\x01\x00')}, {"Inference-Header-Content-Length": "14"})
    assert (caught.value.field, "binary_data=False" in caught.value.allowed) == ("inputs", True)


def test_an_envelope_that_is_null_is_not_given() -> None:
    for name in ("data", "instances", "inputs"):
        assert fields_of({"body": {name: None, "steps": 1}}, {}) == ({"steps": 1}, False)
        assert fields_of({"data": json.dumps({name: None, "steps": 1})}, {}) == ({"steps": 1}, False)


def test_nested_data_cost_no_more_than_they_weigh() -> None:
    """Flattened a level at a time, however deep, they once held a worker for 38 s."""
    nested: list[Any] = [1]
    for _ in range(900):
        nested = [nested]
    data = [1] * 100_000 + nested
    began = time.perf_counter()
    with pytest.raises(BadRequest, match="do not fill its shape"):
        fields_of({"body": {"inputs": [tensor("label", data, shape=[1, 1])]}}, {})
    assert time.perf_counter() - began < 1
