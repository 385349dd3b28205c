"""KServe's second protocol, the Open Inference Protocol: tensors in, tensors out, with values in JSON.

An input is a field by its name. The first number of its shape is the batch: n values are n requests, and an
input of one value, or of the shape [], is the same for all of them. What follows is a list in each request.
The requests of a batch are answered together or, if one of them is wrong, refused together: the protocol has
no place for an error beside tensors.
"""

import base64
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from genserve.serving.fields import BadRequest, Fields, echo, problem
from genserve.serving.instances import INSTANCES_MAX, fit_for_json
from genserve.serving.picture_replies import TYPES
from genserve.serving.replies import JSON, Reply

DATATYPES: dict[str, tuple[type, ...]] = (
    {"BOOL": (bool,), "BYTES": (str,)}
    | {f"{sign}INT{bits}": (int,) for sign in ("", "U") for bits in (8, 16, 32, 64)}
    | {f"FP{bits}": (int, float) for bits in (16, 32, 64)}
)
DIMENSIONS_MAX = 4  # of an input
BESIDE = ("id", "parameters", "outputs", "model_name", "model_version")  # what may stand beside inputs
SAME = ("task", "format", "scale", "num_samples", "top_k")  # fields that decide what the outputs are
EXAMPLE = '[{"name": "steps", "shape": [1], "datatype": "INT64", "data": [4]}]'


class Column(NamedTuple):
    """One request's part of an output."""

    shape: list[int]
    data: list[Any]
    parameters: dict[str, str]


@dataclass(frozen=True)
class Tensors:
    """The requests in `inputs`.

    Args:
        reads: each returns the fields of a request, or raises its BadRequest.
        kind: the requests of the model.
        id: the client's name for all of them.
        outputs: names of those that it wants; None if it wants all.
    """

    reads: Sequence[Callable[[], dict[str, Any]]]
    kind: type[Fields]
    id: str | None = None
    outputs: tuple[str, ...] | None = None

    name = "inputs"
    all_or_none = True  # an answer is tensors or an error

    def joined(self, replies: dict[int, Reply], model: str, version: str) -> Reply:
        """Return the one answer.

        Args:
            replies: to each request by its number, in their order; if one has failed, others may be missing.
            model, version: what the answer says of them.
        """
        for k, reply in replies.items():
            if reply.status != 200:
                return reply if len(self.reads) == 1 else _named(reply, k)
        columns = [_columns(reply, self.kind) for reply in replies.values()]
        outputs = [
            _output(name, datatype, [column[name] for column in columns])
            for name, (datatype, _, _) in self.kind.outputs.items()
            if all(name in column for column in columns) and (self.outputs is None or name in self.outputs)
        ]
        answer: dict[str, Any] = {"model_name": model, "model_version": version}
        if self.id is not None:
            answer["id"] = self.id
        answer["outputs"] = outputs
        return Reply(json.dumps(answer, separators=(",", ":")).encode(), "application/json")


def tensors(body: dict[str, Any], kind: type[Fields]) -> Tensors:
    """Return the requests in a body with `inputs`.

    Args:
        body: has no other keys than `inputs` and those of BESIDE. Only `id` and `outputs` mean something.
        kind: the requests of the model.

    Raises:
        BadRequest: the inputs are no tensors, or do not fit each other.
    """
    inputs = body["inputs"]
    if not isinstance(inputs, list) or not all(isinstance(one, dict) for one in inputs):
        raise BadRequest("inputs", "not a list of JSON objects", EXAMPLE)
    columns: dict[str, list[Any]] = {}
    for one in inputs:
        name = one.get("name")
        if not isinstance(name, str) or not name.strip():
            raise BadRequest("inputs", "an input without a name", EXAMPLE)
        if name in columns:
            raise BadRequest(echo(name), "two inputs of this name", "one")
        columns[name] = _values(echo(name), one)
    n = max((len(values) for values in columns.values()), default=1)
    for name, values in columns.items():
        if len(values) not in (1, n):
            raise BadRequest(echo(name), f"a batch of {len(values)} beside one of {n}", f"1 or {n}")
        if name in SAME and any(value != values[0] for value in values):
            raise BadRequest(name, "not the same in the batch", "one value")
    requests = [{name: values[k % len(values)] for name, values in columns.items()} for k in range(n)]
    reads = [partial(fit_for_json, "inputs", fields) for fields in requests]
    return Tensors(reads, kind, _id(body), _outputs(body, kind))


def _id(body: dict[str, Any]) -> str | None:
    name = body.get("id")
    if name is not None and not isinstance(name, str):
        raise BadRequest("id", "not text", '"42", say')
    return name


def _outputs(body: dict[str, Any], kind: type[Fields]) -> tuple[str, ...] | None:
    outputs = body.get("outputs")
    if not outputs:
        return None
    if not isinstance(outputs, list) or not all(isinstance(one, dict) for one in outputs):
        raise BadRequest("outputs", "not a list of JSON objects", '[{"name": "png"}]')
    names = [one.get("name") for one in outputs]
    for name in names:
        if not isinstance(name, str) or name not in kind.outputs:
            raise BadRequest("outputs", f"no output {echo(str(name))}", ", ".join(kind.outputs))
    return tuple(names)


def _values(name: str, tensor: dict[str, Any]) -> list[Any]:
    """Return the value that an input has in each request; a list of one is for all of them."""
    if unknown := [key for key in tensor if key not in ("name", "shape", "datatype", "data", "parameters")]:
        raise BadRequest(
            name, f"an input has no {echo(unknown[0])}", "name, shape, datatype, data, parameters"
        )
    datatype, shape, data = (tensor.get(key) for key in ("datatype", "shape", "data"))
    types = DATATYPES.get(datatype) if isinstance(datatype, str) else None
    if types is None:
        raise BadRequest(name, "no such datatype", ", ".join(DATATYPES))
    if not isinstance(data, list):
        raise BadRequest(name, "its data are not a list", "values in JSON (tritonclient: binary_data=False)")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise BadRequest(name, "its shape is not a list of whole numbers", f"[1], or [{len(data)}]")
    if len(shape) > DIMENSIONS_MAX:
        raise BadRequest(name, f"its shape has {len(shape)} dimensions", f"at most {DIMENSIONS_MAX}")
    n = shape[0] if shape else 1
    if not 1 <= n <= INSTANCES_MAX:
        raise BadRequest(name, f"a batch of {n}", f"1 to {INSTANCES_MAX}")
    for _ in shape[1:]:  # nested by the shape, or flat
        data = [inner for value in data for inner in (value if isinstance(value, list) else [value])]
    if math.prod(shape) != len(data) or sum(n != 1 for n in shape[1:]) > 1:
        raise BadRequest(name, f"{len(data)} values do not fill its shape", f"[1], or [{len(data)}]")
    if not all(type(value) in types for value in data):
        raise BadRequest(name, f"its data are not {datatype}", "values of its datatype")
    if len(data) == n:
        return data
    length = len(data) // n
    return [data[k * length : (k + 1) * length] for k in range(n)]


def _named(reply: Reply, k: int) -> Reply:
    """Return an error of one request of a batch, whose message says which."""
    error = json.loads(reply.body)
    body = problem(error["field"], f"request {k} of the batch: {error['message']}", error["allowed"])
    return Reply(body, reply.content_type, reply.status, reply.headers)


def _columns(reply: Reply, kind: type[Fields]) -> dict[str, Column]:
    """Return a request's part of each output that its answer has."""
    columns = {
        name: Column([], [int(reply.headers[header])], {})
        for name, header in (("seed", "X-Seed"), ("seed_to", "X-Seed-To"), ("nfe", "X-NFE"))
        if header in reply.headers
    }
    if reply.content_type == TYPES["npy"]:
        pixels = np.load(io.BytesIO(reply.body))
        return columns | {"pixels": Column(list(pixels.shape), pixels.ravel().tolist(), {})}
    if reply.content_type != JSON:
        file = base64.b64encode(reply.body).decode()
        return columns | {"file": Column([], [file], {"content_type": reply.content_type})}
    content = json.loads(reply.body)
    if kind.items not in content:
        return columns | {"description": Column([], [reply.body.decode()], {"content_type": JSON})}
    rows = [_spread(row) for row in content[kind.items]]
    for name in kind.outputs.keys() & rows[0].keys() - columns.keys():
        if column := _stacked([row[name] for row in rows]):
            columns[name] = column
    settings = json.dumps(content["settings"])
    return columns | {"settings": Column([], [settings], {"content_type": JSON})}


def _spread(row: dict[str, Any]) -> dict[str, Any]:
    """Return an item with a list of objects as a list for each of their keys, named NAME_KEY."""
    flat = dict(row)
    for name, value in row.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            flat |= {f"{name}_{key}": [one[key] for one in value] for key in value[0]}
    return flat


def _stacked(values: list[Any]) -> Column | None:
    """Return values, or lists of them, as one part of an output; None if one is missing or lengths differ."""
    if None in values:
        return None
    if not isinstance(values[0], list):
        return Column([len(values)], values, {})
    if len({len(value) for value in values}) > 1:
        return None
    return Column([len(values), len(values[0])], [inner for value in values for inner in value], {})


def _output(name: str, datatype: str, columns: list[Column]) -> dict[str, Any]:
    """Return a tensor of the answer, the requests' parts one after the other."""
    output: dict[str, Any] = {
        "name": name,
        "shape": [len(columns), *columns[0].shape],
        "datatype": datatype,
        "data": [value for column in columns for value in column.data],
    }
    return output | ({"parameters": columns[0].parameters} if columns[0].parameters else {})
