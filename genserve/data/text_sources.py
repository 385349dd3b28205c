"""Read text out of the packages that have it: an R data base, WordNet's files, Gutenberg's plain texts."""

import re
import struct
import zlib
from collections.abc import Iterable, Iterator

STRINGS, STRING, MISSING = 16, 9, -1  # types in R's serialisation (STRSXP, CHARSXP) and the length of NA

TYPOGRAPHY = {"\u2019": "'", "\u2018": "'", "\u201c": '"', "\u201d": '"', "\u2014": "--", "_": "", "\r": ""}
PLAIN = dict(zip("éèêàçïëâîôûü", "eeeacieaiouu", strict=True)) | {"£": "l. "}


def r_objects(data: bytes) -> Iterator[bytes]:
    """Yield the serialised objects of an R lazy-load data base (.rdb).

    Each is four bytes of the big-endian length it unpacks to, then a zlib stream.

    Raises:
        ValueError: the data are of another kind, or torn.
    """
    position = 0
    while position < len(data):
        stream = zlib.decompressobj()
        try:
            result = stream.decompress(data[position + 4 :])
        except zlib.error as error:
            raise ValueError(f"no R data base: byte {position} begins no zlib stream ({error})") from None
        if not stream.eof or len(result) != int.from_bytes(data[position : position + 4], "big"):
            raise ValueError(f"no whole R data base: the object at byte {position} is torn")
        yield result
        position = len(data) - len(stream.unused_data)


def r_strings(data: bytes) -> list[str]:
    """Return a character vector from R's XDR serialisation, versions 2 and 3; NA is "".

    Raises:
        ValueError: the data hold something else.
    """
    try:
        if data[:2] != b"X\n":
            raise ValueError("it does not begin with X")
        (version,) = struct.unpack_from(">i", data, 2)
        position = 14
        if version == 3:  # the name of the native encoding follows
            (length,) = struct.unpack_from(">i", data, position)
            position += 4 + length
        kind, n = struct.unpack_from(">Ii", data, position)
        if kind & 255 != STRINGS:
            raise ValueError(f"an object of type {kind & 255}")
        position += 8
        result = []
        for _ in range(n):
            kind, length = struct.unpack_from(">Ii", data, position)
            if kind & 255 != STRING or length < MISSING:
                raise ValueError(f"an element of type {kind & 255}")
            position += 8
            text = data[position : position + max(length, 0)]
            result.append(text.decode())
            position += len(text)
    except (ValueError, struct.error) as error:
        raise ValueError(f"no character vector of R: {error}") from error
    return result


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a text that was wrapped by hand, each on one line, in ASCII.

    Empty lines part paragraphs. Typographic quotes become plain ones, accents and marks of emphasis go.
    """
    text = "".join(TYPOGRAPHY.get(c, c) for c in text)
    text = re.sub(r"[^\x20-\x7e\n]", lambda match: PLAIN.get(match[0], ""), text)
    lines = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
    return [line for line in lines if line]


def glosses(lines: Iterable[str]) -> Iterator[str]:
    """Yield "words: gloss" for each line of one of WordNet's data files; its licence, indented, is left out.

    Source: wndb(5WN) of WordNet 3.0: the number of words is hexadecimal, the gloss follows "|".
    """
    for line in lines:
        if line.startswith(" "):
            continue
        fields, _, gloss = line.partition("|")
        _, _, _, count, *rest = fields.split()
        words = [re.sub(r"\(.*\)", "", word).replace("_", " ") for word in rest[: 2 * int(count, 16) : 2]]
        yield f"{', '.join(words)}: {gloss.strip()}"
