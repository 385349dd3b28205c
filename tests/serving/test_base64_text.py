"""Files as text: every honest form of base64 gives the same bytes, and nothing is guessed of the others."""

import base64
import subprocess
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genserve.serving.base64_text import decode, split

FILE = bytes(range(256)) + b"\xfb\xff"  # every character of both alphabets, and padding
STANDARD, URL_SAFE = base64.b64encode(FILE).decode(), base64.urlsafe_b64encode(FILE).decode()


@given(st.binary(min_size=1, max_size=90), st.booleans(), st.booleans())
def test_both_alphabets_are_read_with_and_without_padding(data: bytes, safe: bool, padded: bool) -> None:
    text = (base64.urlsafe_b64encode if safe else base64.b64encode)(data).decode()
    assert decode(text if padded else text.rstrip("=")) == data


@pytest.mark.parametrize(
    "text",
    [
        f"\n  {STANDARD}\t\r\n",
        base64.encodebytes(FILE).decode(),  # lines of 76, as in a mail
        base64.encodebytes(FILE).decode().replace("\n", "\r\n"),
        f"data:image/png;base64,{STANDARD}",
        f"data:;base64,{URL_SAFE}",
        f"DATA:Image/PNG;charset=utf-8;name=seven;BASE64,{STANDARD}",
        f" data:application/octet-stream;base64,\n{STANDARD} ",
        f"data:image/png;base64,{quote(STANDARD, safe='')}",
    ],
)
def test_line_breaks_white_space_around_and_data_urls_change_nothing(text: str) -> None:
    assert decode(text) == FILE


def test_what_gnu_base64_writes_is_read() -> None:
    written = subprocess.run(["base64"], input=FILE, capture_output=True, check=True).stdout.decode()
    assert written.count("\n") > 1
    assert decode(written) == FILE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("data:image/png;base64,", "empty"),
        ("AAAA,BBBB", "a comma"),
        ("image/png;base64,AAAA", "a comma"),
        ("data:image/png;base64,AAAA,BBBB", "other characters"),
        ("data:image/png,AAAA", "not base64"),
        ("data:image/png;base64x,AAAA", "not base64"),
        ("data:AAAA", "not base64"),
        ("AA AA", "%2B"),  # a form's unescaped +
        ("+/-_", "mixes two alphabets"),
        ("AAA?", "other characters"),
        ("caf\u00e9", "other characters"),
        ("\uff21\uff21\uff21\uff21", "other characters"),
        ("\ud800", "other characters"),
        ("AAAAA", "cut off"),
        ("AA=", "padded"),
        ("AAAA=", "padded"),
        ("AA==AA==", "other characters"),
        ("====", "padded"),
    ],
)
def test_anything_else_is_refused_and_not_repeated(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        decode(text)
    assert not text.strip() or text not in str(caught.value)


def test_a_list_is_split_at_commas_but_a_data_url_stays_whole() -> None:
    assert split("AAA,BBB") == ["AAA", "BBB"]
    assert split("data:image/png;base64,AAA") == ["data:image/png;base64,AAA"]
    urls = ["data:image/png;base64,AAA", "DATA:;base64,BBB"]
    assert split(",".join(urls)) == urls
    assert split(",".join(["CCC", *urls, "DDD"])) == ["CCC", *urls, "DDD"]
    assert split("AAA,") == ["AAA", ""]
