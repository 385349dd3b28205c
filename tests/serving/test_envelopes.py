"""Fields as other servers' clients send them: TorchServe's `data`, and the bodies of KServe's protocols."""

import base64
import json
from functools import partial
from typing import Any

import pytest
from tensors_sent import tensor

from genserve.serving import rows
from genserve.serving.fields import BadRequest, parse
from genserve.serving.requests.diffusion import DiffusionRequest
from genserve.serving.requests.energy import EnergyRequest

fields_of = partial(rows.fields_of, kind=EnergyRequest)

FIELDS = {"num_samples": 4, "seed": 1, "eta": 0.5, "sampler": "ddim", "label": [1, 2, 3, 4], "stream": True}
ONE = {"seed": 1, "eta": 0.5, "sampler": "ddim", "label": [1, 2], "stream": False}
TWO = ONE | {"seed": 2, "label": [3, 4]}
GIF = b"GIF89a and so on"
TEXT = base64.b64encode(GIF).decode()


TENSORS = [
    tensor("seed", [1, 2]),
    tensor("eta", [0.5], "FP32", [1, 1]),
    tensor("sampler", ["ddim"], "BYTES", []),
    tensor("label", [[1, 2], [3, 4]], "INT32", [2, 2]),
    tensor("stream", [False], "BOOL"),
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
    ],
)
def test_fields_in_data_are_the_fields_without_it(row: dict[str, Any]) -> None:
    assert fields_of(row, {}) == (FIELDS, False)


@pytest.mark.parametrize(
    "row",
    [
        {"body": {"instances": [ONE, TWO]}},
        {"body": bytearray(json.dumps({"instances": [ONE, TWO]}).encode())},
        {"body": {"data": {"instances": [ONE, TWO]}}},
        {"data": json.dumps({"instances": [ONE, TWO]}).encode()},
        {"body": {"instances": [{"data": ONE}, {"data": json.dumps(TWO)}]}},
        {"body": {"instances": [ONE, TWO], "seed": None, "data": None, "inputs": None}},
        {"body": {"inputs": TENSORS}},
        {"body": {"inputs": TENSORS, "id": "42", "parameters": {"binary_data_output": True}, "outputs": []}},
        {"data": json.dumps({"inputs": TENSORS}).encode()},
    ],
)
def test_the_protocols_bodies_are_several_requests(row: dict[str, Any]) -> None:
    envelope = fields_of(row, {})
    assert not isinstance(envelope, tuple)
    assert [read() for read in envelope.reads] == [ONE | {"format": "json"}, TWO | {"format": "json"}]


def test_a_format_that_is_given_stays_and_a_description_has_none() -> None:
    instances = [{"format": "gif"}, {"task": "describe"}, {"format": None}]
    envelope = fields_of({"body": {"instances": instances}}, {})
    assert not isinstance(envelope, tuple)
    assert [read() for read in envelope.reads] == [*instances[:2], {"format": "json"}]


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
    explain = {"explain": "True"}
    assert fields_of({"body": {"data": TEXT}}, explain) == ({"images": GIF, "task": "explain"}, False)
    instances = [
        {"images": TEXT},
        {"data": TEXT},
        {"images": {"b64": TEXT}, "task": "explain"},
        {"task": "score"},
    ]
    for body in ({"instances": instances}, {"inputs": [tensor("images", [TEXT] * 4, "BYTES")]}):
        envelope = fields_of({"body": body}, explain)
        assert not isinstance(envelope, tuple)
        reads = envelope.reads[:3]
        assert [read()["task"] for read in reads] == ["explain"] * 3
        assert {read()["images"] for read in reads} <= {TEXT, GIF}
    envelope = fields_of({"body": {"instances": instances}}, explain)
    with pytest.raises(BadRequest, match="this address explains"):
        envelope.reads[3]()


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
        ({"instances": [ONE] * 65}, "instances", "65 instances"),
        ({"instances": FIELDS}, "instances", "not a list"),
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
