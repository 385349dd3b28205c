"""Fields: one rule for each, whichever way they arrive in, and errors that name field and allowed values."""

import base64
import contextlib
import json
import time
from functools import partial
from typing import Any

import pytest

from genserve.serving import rows
from genserve.serving.fields import ECHO, BadRequest, parse
from genserve.serving.requests.diffusion import DiffusionRequest
from genserve.serving.requests.energy import EnergyRequest
from genserve.serving.requests.pictures import PictureRequest

fields_of = partial(rows.fields_of, kind=EnergyRequest)


def literal(value: str) -> str:
    """Return a value as JSON writes it: itself if it is JSON, else as text in quotes."""
    try:
        json.loads(value, parse_int=str)
    except ValueError:
        return json.dumps(value)
    return value if value == value.strip() else json.dumps(value)


def arrived(transport: str, name: str, value: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the row and the headers with which the host hands a field over, as tried on TorchServe 0.12."""
    if "json" in transport:
        body = json.dumps(name) + ": " + literal(value)
        body = "{" + body + "}"
        if transport == "json":
            try:
                return {"body": json.loads(body)}, {"Content-Type": "application/json"}
            except ValueError:  # digits that Python refuses to read
                return {"body": bytearray(body.encode())}, {"Content-Type": "application/json"}
        return {"body": bytearray(body.encode())}, {"content-type": "application/octet-stream"}
    row = {name: bytearray(value.encode(errors="surrogatepass"))}
    if transport == "grpc":
        return row, {name: {"content-type": ""}}
    kind = {"form": "application/x-www-form-urlencoded", "multipart": "multipart/form-data; boundary=x"}
    sent = {"Content-Type": kind[transport], "Content-Length": "99"} if transport in kind else {}
    return row, {name: {"content-type": ""}} | sent


TRANSPORTS = ("json", "json as bytes", "form", "multipart", "query", "grpc")


def read(transport: str, name: str, value: str, kind: type[PictureRequest] = EnergyRequest) -> Any:
    return getattr(parse(kind, *fields_of(*arrived(transport, name, value))), name)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("num_samples", "4", 4),
        ("seed", "0", 0),
        ("seed", str(2**63 - 1), 2**63 - 1),
        ("eta", "1", 1.0),
        ("eta", "0.25", 0.25),
        ("step_size", "1e-3", 1e-3),
        ("step_size", "1.5E+2", 150.0),
        ("stream", "true", True),
        ("stream", "false", False),
        ("stream", "jsonl", "jsonl"),
        ("sampler", "ddim", "ddim"),
        ("label", "three", "three"),
        ("images", "QUJD\nREVG", b"ABCDEF"),
    ],
)
def test_a_good_value_is_the_same_in_every_transport(
    transport: str, name: str, value: str, expected: Any
) -> None:
    taken = read(transport, name, value)
    assert (taken, type(taken)) == (expected, type(expected))


NO_WHOLE = (
    *(
        "1_0",
        " 4",
        "4 ",
        "+5",
        "007",
        "0x10",
        "1e3",
        "4.0",
        "-1",
        "\uff14",
        "\u0663",
        "",
        "four",
        "true",
        "null ",
    ),
    *("NaN", "Infinity", "-Infinity", "1e400", "1,2", "[1]", '{"a": 1}', "[" * 300 + "]" * 300, "9" * 5000),
    *("1" + "0" * 400, "1" + "0" * 4299, "-" + "9" * 5000, "1.", ".5", "--1"),
)
NO_REAL = (
    *("1_0", " 4", "+5", "007", "0x10", "\uff14", "", "true", "NaN", "Infinity", "nan", "inf", "1e400", "-1"),
    *(
        "1,2",
        "[1]",
        "{}",
        "1" + "0" * 400,
        "9" * 5000,
        "1.",
        ".5",
        "1e",
        "1e99999",
        "0.5f",
        "1 000",
    ),
)
REFUSED = [
    *[(name, value) for name in ("num_samples", "scale") for value in NO_WHOLE],
    *[(name, value) for name in ("eta", "step_size") for value in NO_REAL],
    *[("sampler", value) for value in ("euler", "", "DDIM", "ddim,heun", '["ddim"]', "true", "1")],
    *[("stream", value) for value in ("2", "maybe", "", "JSONL", "[true]", "{}", "truetrue", "1.0")],
    *[("label", value) for value in ("[true]", "{}", "[[1]]", "[1.5]", "[" + "1," * 64 + "1]", "[{}]")],
    *[("images", value) for value in ("[1]", "{}", "[[]]", "[null]")],
    *[("mask", value) for value in ("{}", '["QUJD"]')],
]


@pytest.mark.parametrize(("name", "value"), REFUSED, ids=[f"{n}={v[:12]!a}" for n, v in REFUSED])
def test_a_bad_value_is_one_error_in_every_transport(name: str, value: str) -> None:
    errors = set()
    for transport in TRANSPORTS:
        if "json" not in transport and name in ("label", "images", "mask"):
            continue  # any text may be a class's name; what is no picture is refused where it is opened
        with pytest.raises(BadRequest) as caught:
            print(transport, read(transport, name, value))
        errors.add((caught.value.status, caught.value.field, caught.value.allowed, caught.value.message))
    ((status, field, allowed, message),) = errors
    assert (status, field) == (400, name)
    assert allowed
    assert len(message) < 100


@pytest.mark.parametrize("name", EnergyRequest.model_fields)
def test_null_is_not_given_in_any_field_but_wrong_in_a_list(name: str) -> None:
    assert parse(EnergyRequest, {name: None}, False) == EnergyRequest()
    assert parse(EnergyRequest, {name: None}, False).model_fields_set == set()
    with pytest.raises(BadRequest) as caught:
        parse(EnergyRequest, {name: [None]}, False)
    assert caught.value.field == name


@pytest.mark.parametrize(
    ("texts", "expected"),
    [(("true", "True", "TRUE", "1", "yes", "on", "On"), True), (("false", "False", "0", "no", "OFF"), False)],
)
def test_text_writes_booleans_as_python_r_and_checkboxes_do(texts: tuple[str, ...], expected: bool) -> None:
    for text in texts:
        assert parse(DiffusionRequest, {"stream": text}, True).stream is expected


@pytest.mark.parametrize("value", [1, 0, 1.0, "true", "True", "false", "on", "1", [], {}, [True]])
def test_json_writes_booleans_as_json_does(value: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(DiffusionRequest, {"stream": value}, False)
    assert (caught.value.field, caught.value.allowed) == ("stream", "true, false, jsonl")
    assert ("quotes" in caught.value.message) == isinstance(value, str)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("", "body"),
        (" ", "body"),
        ("Seed", "Seed"),
        ("größe", "größe"),
        ("__proto__", "__proto__"),
        ("x" * 5000, "x" * ECHO),
        ("a\nb", "a\nb"),
        ("\ud800", "?"),
    ],
)
def test_a_field_that_is_unknown_is_named_and_never_empty(transport: str, name: str, field: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read(transport, name, "1")
    assert caught.value.field == field
    assert "num_samples" in caught.value.allowed
    assert json.loads(caught.value.body())["field"] == field


@pytest.mark.parametrize("name", ["seed", "eta", "sampler", "stream", "label", "images", "mask"])
def test_bytes_that_are_no_text_are_refused_and_never_mended(name: str) -> None:
    for transport in ("form", "multipart", "query", "grpc"):
        with pytest.raises(BadRequest, match="not text") as caught:
            read(transport, name, "4\ud800")
        assert caught.value.field == name
        assert "UTF-8" in caught.value.allowed


def test_a_lone_surrogate_in_json_is_no_value() -> None:
    for name in ("seed", "eta", "sampler", "stream"):
        with pytest.raises(BadRequest) as caught:
            read("json", name, "\ud800")
        assert caught.value.field == name


def test_an_unknown_field_is_refused_though_it_is_null() -> None:
    with pytest.raises(BadRequest) as caught:
        parse(DiffusionRequest, {"colour": None}, False)
    assert caught.value.field == "colour"


def test_a_list_in_text_is_split_at_commas() -> None:
    assert parse(EnergyRequest, {"label": "1,2 , three"}, True).label == ["1", "2", "three"]
    assert parse(EnergyRequest, {"label": "1,"}, True).label == ["1", ""]  # of which one is no class
    assert parse(EnergyRequest, {"label": " 3"}, True).label == " 3"
    url = "data:image/png;base64,QUJD"
    assert parse(EnergyRequest, {"images": url}, True).images == [b"ABC"]
    assert parse(EnergyRequest, {"images": f"{url},{url}"}, True).images == [b"ABC", b"ABC"]
    assert parse(EnergyRequest, {"images": "QUJD,REVG"}, True).images == [b"ABC", b"DEF"]
    with pytest.raises(BadRequest, match="one picture, not a list"):
        parse(EnergyRequest, {"images": "QUJD,REVG"}, False)
    with pytest.raises(BadRequest, match="images 1: not base64: it has other characters"):
        parse(EnergyRequest, {"images": ["QUJD", "?"]}, False)
    with pytest.raises(BadRequest, match="too long"):
        parse(EnergyRequest, {"images": "A," * 64 + "A"}, True)


def test_an_error_is_text_for_people_and_its_parts_for_programs() -> None:
    with pytest.raises(BadRequest) as caught:
        parse(DiffusionRequest, {"num_samples": 65}, False)
    assert json.loads(caught.value.body()) == {
        "error": "num_samples: out of range (allowed: 1 to 64)",
        "field": "num_samples",
        "message": "out of range",
        "allowed": "1 to 64",
    }


def test_a_client_of_kserve_can_show_an_error() -> None:
    body = BadRequest("steps", "out of range", "1 to 1000").body()
    # what tritonclient 2.73 does: _get_error reads `error`, InferenceServerException.__str__ adds the status
    message = "[" + str(400) + "] " + json.loads(body)["error"]
    assert message == "[400] steps: out of range (allowed: 1 to 1000)"


def test_no_request_shows_a_client_s_pictures() -> None:
    text = base64.b64encode(b"a picture").decode()
    request = parse(EnergyRequest, {"images": [text], "mask": text, "seed": 7}, False)
    assert text not in repr(request) + str(request)
    assert "seed=7" in repr(request)


@pytest.mark.parametrize("name", list(EnergyRequest.model_fields))
def test_no_field_costs_more_than_it_weighs(name: str) -> None:
    """A run of spaces that no comma follows once held a worker until the host killed it."""
    for filler in (" ", ",", "a", "-", "0", "data:,", ", ", "=", "%"):
        text = "0,x" + filler * (262_000 // len(filler)) + "x"
        began = time.perf_counter()
        with contextlib.suppress(BadRequest):
            parse(EnergyRequest, {name: text}, text=True)
        assert time.perf_counter() - began < 1, filler
