"""KServe's second protocol: which requests tensors are, and what is wrong with those that are none."""

import json
import time
from typing import Any

import pytest
from tensors_sent import tensor

from genserve.serving.fields import BadRequest, parse
from genserve.serving.requests.diffusion import DiffusionRequest
from genserve.serving.requests.pictures import PictureRequest
from genserve.serving.rows import fields_of
from genserve.serving.tensors import Tensors


def sent(inputs: Any, **beside: Any) -> Tensors:
    envelope = fields_of({"body": {"inputs": inputs} | beside}, {}, DiffusionRequest)
    assert isinstance(envelope, Tensors)
    return envelope


def requests(inputs: Any) -> list[dict[str, Any]]:
    fields = [read() for read in sent(inputs).reads]
    assert all(one.pop("format") == "json" for one in fields)
    return fields


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ([], [{}]),
        ([tensor("seed", [1], shape=[])], [{"seed": 1}]),
        ([tensor("seed", [1])], [{"seed": 1}]),
        ([tensor("seed", [[1]])], [{"seed": 1}]),
        ([tensor("seed", [1, 2, 3])], [{"seed": 1}, {"seed": 2}, {"seed": 3}]),
        ([tensor("seed", [[1], [2]], shape=[2, 1])], [{"seed": 1}, {"seed": 2}]),
        ([tensor("seed", [1, 2]), tensor("label", ["a"], "BYTES", [])],
         [{"seed": 1, "label": "a"}, {"seed": 2, "label": "a"}]),
        ([tensor("seed", [1, 2]), tensor("eta", [0.5], "FP32")],
         [{"seed": 1, "eta": 0.5}, {"seed": 2, "eta": 0.5}]),
        ([tensor("label", [1, 2, 3], shape=[1, 3])], [{"label": [1, 2, 3]}]),
        ([tensor("label", [1, 2, 3, 4], shape=[2, 2])], [{"label": [1, 2]}, {"label": [3, 4]}]),
        ([tensor("label", [], shape=[2, 0])], [{"label": []}, {"label": []}]),
    ],
)  # fmt: skip
def test_the_first_number_of_a_shape_is_the_batch(inputs: Any, expected: list[Any]) -> None:
    inputs = [one | ({"shape": [1, 1]} if one["data"] == [[1]] else {}) for one in inputs]
    assert requests(inputs) == expected


@pytest.mark.parametrize(
    ("inputs", "field", "message"),
    [
        ({"seed": 1}, "inputs", "not a list"),
        ([1], "inputs", "not a list"),
        ([{"shape": [1], "datatype": "INT64", "data": [1]}], "inputs", "without a name"),
        ([tensor("", [1])], "inputs", "without a name"),
        ([tensor("seed", [1]), tensor("seed", [2])], "seed", "two inputs"),
        ([tensor("seed", [1], "INT7")], "seed", "no such datatype"),
        ([tensor("seed", [1]) | {"datatype": []}], "seed", "no such datatype"),
        ([tensor("seed", ["1"])], "seed", "not INT64"),
        ([tensor("seed", [True])], "seed", "not INT64"),
        ([tensor("seed", [1.0])], "seed", "not INT64"),
        ([tensor("seed", [None])], "seed", "not INT64"),
        ([tensor("seed", [1.0], "FP32")], "seed", "not a whole number"),
        ([tensor("seed", ["1"], "BYTES")], "seed", "not a whole number"),
        ([tensor("seed", [1, 2], shape=[1, 2])], "seed", "not a whole number"),
        ([tensor("seed", [1], shape=[2])], "seed", "do not fill its shape"),
        ([tensor("label", list(range(8)), shape=[2, 2, 2])], "label", "do not fill its shape"),
        ([tensor("seed", [1], shape="1")], "seed", "its shape"),
        ([tensor("seed", [1], shape=[True])], "seed", "its shape"),
        ([tensor("seed", [1], shape=[-1])], "seed", "its shape"),
        ([tensor("seed", [1], shape=[1] * 5)], "seed", "5 dimensions"),
        ([tensor("seed", [])], "seed", "a batch of 0"),
        ([tensor("seed", [], shape=[10**9, 0])], "seed", "a batch of 1000000000"),
        ([tensor("seed", [1] * 65)], "seed", "a batch of 65"),
        ([tensor("seed", [1, 2, 3]), tensor("label", [1, 2])], "label", "a batch of 2 beside one of 3"),
        ([tensor("format", ["npy", "json"], "BYTES")], "format", "not the same"),
        ([tensor("scale", [1, 2])], "scale", "not the same"),
        ([{"name": "seed", "shape": [1], "datatype": "INT64"}], "seed", "not a list"),
        ([tensor("seed", [1]) | {"dtype": "INT64"}], "seed", "no dtype"),
        ([tensor("colour", [1])], "colour", "no such field"),
        ([tensor("c" * 500, [1])], "c" * 40, "no such field"),
        ([tensor("seed", json.loads("[" * 900 + "]" * 900), shape=[1])], "seed", "not INT64"),
        ([tensor("stream", [True], "BOOL")], "stream", "one answer"),
        ([tensor("stream", ["jsonl"], "BYTES")], "stream", "one answer"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_tensor_is_named(inputs: Any, field: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message) as caught:
        parse(DiffusionRequest, sent(inputs).reads[0](), text=False)
    assert (caught.value.field, caught.value.status) == (field, 400)
    assert caught.value.allowed
    assert len(caught.value.body()) < 1000


@pytest.mark.parametrize(
    ("beside", "field", "message"),
    [
        ({"id": 42}, "id", "not text"),
        ({"outputs": "png"}, "outputs", "not a list"),
        ({"outputs": ["png"]}, "outputs", "not a list"),
        ({"outputs": [{"name": "jpeg"}]}, "outputs", "no output jpeg"),
        ({"outputs": [{}]}, "outputs", "no output None"),
        ({"outputs": [{"name": ["png"]}]}, "outputs", "no output"),
        ({"seed": 1}, "inputs", "beside it"),
    ],
)
def test_what_is_wrong_beside_tensors_is_named(beside: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message) as caught:
        sent([], **beside)
    assert caught.value.field == field


def test_nested_data_cost_no_more_than_they_weigh() -> None:
    """Flattened a level at a time, however deep, they once held a worker for 38 s."""
    nested: list[Any] = [1]
    for _ in range(900):
        nested = [nested]
    data = [1] * 100_000 + nested
    began = time.perf_counter()
    with pytest.raises(BadRequest, match="do not fill its shape"):
        sent([tensor("label", data, shape=[1, 1])])
    assert time.perf_counter() - began < 1


def test_every_output_has_a_type_that_the_protocol_knows() -> None:
    assert {datatype for datatype, _, _ in PictureRequest.outputs.values()} == {
        "BYTES",
        "UINT8",
        "INT64",
        "FP64",
    }
