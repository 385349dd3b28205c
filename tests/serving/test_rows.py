"""How a client's fields arrive from the host, as tried on TorchServe 0.12."""

from functools import partial
from typing import Any

import pytest

from genserve.serving import rows
from genserve.serving.fields import BadRequest, parse
from genserve.serving.requests.energy import EnergyRequest

fields_of = partial(rows.fields_of, kind=EnergyRequest)


@pytest.mark.parametrize(
    ("row", "fields", "text"),
    [
        ({"body": bytearray(b'{"steps": 4}')}, {"steps": 4}, False),  # JSON, whatever its content type
        ({"body": {"steps": 4}}, {"steps": 4}, False),  # JSON that the host has parsed
        ({"body": '{"steps": 4}'}, {"steps": 4}, False),  # text/plain that the host has decoded
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
        ({"body": None}, {"Content-Type": "application/json", "Content-Length": "4"}),
        ({"body": "x"}, {}),
        ({"body": bytearray(b'"{}"')}, {"Content-Type": "application/json", "Content-Length": "4"}),
        ({"body": bytearray(b"null")}, {}),
        ({"body": bytearray(b"[]")}, {}),
        ({"body": bytearray(b"MM\x00* a TIFF \xff")}, {"Content-Type": "image/tiff"}),
        ({"body": {"steps": 4}, "seed": bytearray(b"1")}, {}),
        ({}, {"Content-Length": "17"}),  # curl -d '{"num_samples":4}': the host hands over nothing
    ],
)
def test_a_body_that_says_nothing_is_refused(row: dict[str, Any], headers: dict[str, str]) -> None:
    with pytest.raises(BadRequest) as caught:
        fields_of(row, headers)
    assert caught.value.field == "body"


@pytest.mark.parametrize("body", [None, [], 4, "4", "x", bytearray(b"null"), bytearray(b'"x"')])
def test_json_that_is_no_object_is_told_so(body: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        fields_of({"body": body}, {"Content-Type": "application/json", "Content-Length": "4"})
    assert caught.value.message == "the body is not a JSON object"


def test_json_may_begin_with_a_byte_order_mark() -> None:
    assert fields_of({"body": bytearray(b'\xef\xbb\xbf{"steps": 4}')}, {}) == ({"steps": 4}, False)


@pytest.mark.parametrize("name", ["Content-Encoding", "content-encoding", "CONTENT-ENCODING"])
@pytest.mark.parametrize("row", [{"body": bytearray(b"\x1f\x8b\x08")}, {}, {"steps": bytearray(b"4")}])
def test_a_compressed_body_is_415(name: str, row: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match="unpack Content-Encoding gzip") as caught:
        fields_of(row, {name: "GZip", "Content-Length": "30"})
    assert (caught.value.status, caught.value.field) == (415, "body")
    assert fields_of({"steps": bytearray(b"4")}, {name: " Identity "}) == ({"steps": "4"}, True)


def test_a_form_field_named_like_a_header_is_no_header() -> None:
    with pytest.raises(BadRequest, match="no such field"):
        parse(
            EnergyRequest,
            *fields_of({"Content-Encoding": b"gzip"}, {"Content-Encoding": {"content-type": ""}}),
        )


def test_a_field_for_pictures_holds_a_file_or_text() -> None:
    gif = b"GIF89a and only ASCII"
    assert fields_of({"images": gif, "mask": b"QUJD"}, {})[0] == {
        "images": gif,
        "mask": "QUJD",
    }
    for name in ("images", "mask"):
        with pytest.raises(BadRequest, match="not text") as caught:
            fields_of({name: b"II*\x00 a TIFF \xff"}, {})
        assert caught.value.field == name
        assert "PNG" in caught.value.allowed


def test_a_picture_is_a_body_or_a_field_but_not_both() -> None:
    picture = bytearray(b"\x89PNG\r\n\x1a\n and so on")
    as_body, _ = fields_of({"body": picture, "sigma": bytearray(b"0.5")}, {})
    as_file, _ = fields_of({"images": picture, "sigma": bytearray(b"0.5")}, {})
    assert as_body == as_file == {"images": bytes(picture), "sigma": "0.5"}
    with pytest.raises(BadRequest) as caught:
        fields_of({"body": picture, "images": picture}, {})
    assert caught.value.field == "images"


@pytest.mark.parametrize("value", [{"a": 1}, 30_000_000_000, [1], None])
def test_a_part_that_the_host_parsed_is_refused(value: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        fields_of({"steps": value}, {})
    assert caught.value.field == "steps"


@pytest.mark.parametrize(
    ("text", "value"), [(b'"ddim"', "ddim"), (b"ddim", "ddim"), (b"[" * 100_000, "[" * 100_000)]
)
def test_a_part_that_was_sent_as_json_is_the_text_that_it_holds(text: bytes, value: str) -> None:
    headers = {"sampler": {"content-type": "application/json"}}
    assert fields_of({"sampler": bytearray(text)}, headers) == ({"sampler": value}, True)


@pytest.mark.parametrize("text", [b"4", b"null", b"[4]", b'{"a": 1}', b"true"])
def test_a_part_that_was_sent_as_json_and_is_no_text_is_refused(text: bytes) -> None:
    with pytest.raises(BadRequest, match="not text") as caught:
        fields_of({"steps": bytearray(text)}, {"steps": {"content-type": "application/json"}})
    assert (caught.value.field, caught.value.allowed) == (
        "steps",
        "a form field without a content type of its own",
    )
    assert fields_of({"steps": bytearray(b"4")}, {"steps": {"content-type": "text/plain"}})[0] == {
        "steps": "4"
    }


@pytest.mark.parametrize("body", ["", "  ", b"  ", b'""'])
def test_json_without_anything_in_it_is_not_told_to_be_json(body: Any) -> None:
    headers = {"Content-Type": "application/json", "content-length": "2"}
    with pytest.raises(BadRequest, match="not a JSON object"):
        fields_of({"body": body}, headers)


@pytest.mark.parametrize("name", ["", " ", "\t"])
@pytest.mark.parametrize("value", [b"4", b"\xff", {"a": 1}])
def test_a_field_without_a_name_is_the_body_s_mistake(name: str, value: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(EnergyRequest, *fields_of({name: value}, {}))
    assert caught.value.field == "body"
