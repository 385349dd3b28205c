"""Text out of the packages that have it, from data made by hand."""

import struct
import zlib

import pytest

from genserve.data.text_sources import glosses, paragraphs, r_objects, r_strings


def serialised(strings: list[str | None], version: int = 3) -> bytes:
    """Return a character vector as R's saveRDS writes it, without compression."""
    head = b"X\n" + struct.pack(">iii", version, 0x40201, 0x30500)
    if version == 3:
        head += struct.pack(">i", 5) + b"UTF-8"
    body = struct.pack(">ii", 16, len(strings))
    for text in strings:
        data = b"" if text is None else text.encode()
        body += struct.pack(">Ii", 0x40009, -1 if text is None else len(data)) + data
    return head + body


def packed(*objects: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(each)) + zlib.compress(each) for each in objects)


@pytest.mark.parametrize("version", [2, 3])
def test_character_vectors_of_r_come_back(version: int) -> None:
    vectors: list[list[str | None]] = [["EMMA", "", "by Jane Austen"], ["é", None, "x"]]
    data = packed(*(serialised(vector, version) for vector in vectors))
    assert [r_strings(each) for each in r_objects(data)] == [["EMMA", "", "by Jane Austen"], ["é", "", "x"]]


def test_other_data_of_r_are_refused() -> None:
    complete = packed(serialised(["EMMA"] * 100))
    with pytest.raises(ValueError, match="torn"):
        list(r_objects(complete[:-3]))
    with pytest.raises(ValueError, match="begins no zlib stream"):
        list(r_objects(b"not a data base"))
    with pytest.raises(ValueError, match="object of type 13"):
        r_strings(serialised([]).replace(struct.pack(">i", 16), struct.pack(">i", 13)))
    for torn in (b"", serialised(["EMMA"])[:-10]):
        with pytest.raises(ValueError, match="no character vector of R"):
            r_strings(torn)


def test_wrapped_lines_become_paragraphs_in_ascii() -> None:
    text = "  It is a truth\r\nuniversally _acknowledged_,\n \n"
    text += "\u201cCaf\u00e9\u2019s \u00a35\u201d\u2014no\u00b6\n\n\n"
    assert paragraphs(text) == ["It is a truth universally acknowledged,", '"Cafe\'s l. 5"--no']


def test_every_accent_has_its_letter() -> None:
    assert paragraphs("é è ê ë à â ç ï î ô û ü") == ["e e e e a a c i i o u u"]


def test_a_gloss_of_wordnet_keeps_its_words_and_drops_pointers() -> None:
    lines = [
        "  1 This software and database is being provided to you\n",
        "00001740 03 n 01 entity 0 003 ~ 00001930 n 0000 | that which is perceived  \n",
        "00002137 00 a 0b " + " ".join(f"w_{k}(p) 0" for k in range(11)) + ' 000 | many; "words"\n',
    ]
    assert list(glosses(lines)) == [
        "entity: that which is perceived",
        ", ".join(f"w {k}" for k in range(11)) + ': many; "words"',
    ]
