"""How a client's fields arrive from the host, as tried on TorchServe 0.12."""

import base64
from typing import Any

import pytest

from genserve.fields import BadRequest
from genserve.rows import fields_of


@pytest.mark.parametrize(
    ("row", "fields", "text"),
    [
        ({"body": {"steps": 4}}, {"steps": 4}, False),  # application/json
        ({"body": bytearray(b'{"steps": 4}')}, {"steps": 4}, False),  # JSON under another content type
        ({"body": '{"steps": 4}'}, {"steps": 4}, False),  # text/plain
        ({"body": bytearray(b"")}, {}, True),  # no body
        ({"body": bytearray(b" \n")}, {}, True),
        (
            {"steps": bytearray(b"4"), "label": bytearray(b"3")},
            {"steps": "4", "label": "3"},
            True,
        ),  # form, query string
        (
            {"model_name": bytearray(b"diffusion"), "steps": bytearray(b"4")},
            {"steps": "4"},
            True,
        ),  # /invocations
        ({}, {}, True),
    ],
)
def test_each_way_of_sending_fields(row: dict[str, Any], fields: dict[str, Any], text: bool) -> None:
    assert fields_of(row, {}) == (fields, text)


@pytest.mark.parametrize(
    ("row", "headers"),
    [
        ({"body": bytearray(b'{"steps":')}, {}),
        ({"body": bytearray(b"\xff\xfe\x00")}, {}),
        ({"body": [1, 2]}, {}),
        ({"body": bytearray(b"[" * 100_000)}, {}),  # deeper than Python's stack
        ({"body": 3}, {}),
        ({"body": {"steps": 4}, "seed": bytearray(b"1")}, {}),
        ({}, {"Content-Length": "17"}),  # curl -d '{"num_samples":4}': the host hands over nothing
    ],
)
def test_a_body_that_says_nothing_is_refused(row: dict[str, Any], headers: dict[str, str]) -> None:
    with pytest.raises(BadRequest) as caught:
        fields_of(row, headers)
    assert caught.value.field == "body"


def test_a_picture_is_a_body_or_a_field_but_not_both() -> None:
    picture = bytearray(b"\x89PNG\r\n\x1a\n and so on")
    as_body, _ = fields_of({"body": picture, "sigma": bytearray(b"0.5")}, {})
    as_file, _ = fields_of({"images": picture, "sigma": bytearray(b"0.5")}, {})
    assert as_body == as_file == {"images": base64.b64encode(picture).decode(), "sigma": "0.5"}
    with pytest.raises(BadRequest) as caught:
        fields_of({"body": picture, "images": picture}, {})
    assert caught.value.field == "images"


@pytest.mark.parametrize("value", [{"a": 1}, 30_000_000_000, [1], None])
def test_a_part_that_the_host_parsed_is_refused(value: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        fields_of({"steps": value}, {})
    assert caught.value.field == "steps"
