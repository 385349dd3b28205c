"""Read files that arrive as text: base64 in all its honest forms, and `data:` URLs."""

import base64
import re
from urllib.parse import unquote

HEADER = re.compile("data:[^,]*; *base64,", re.IGNORECASE)  # any media type and parameters (RFC 2397)
STANDARD, URL_SAFE = re.compile("[A-Za-z0-9+/]*"), re.compile("[A-Za-z0-9_-]*")  # RFC 4648, 4 and 5


def decode(text: str) -> bytes:
    """Return the file in a text.

    The standard or the URL-safe alphabet, with or without padding, in one line or broken into several (MIME,
    GNU base64), with white space around it, or a `data:` URL. Anything else is refused, never skipped.

    Raises:
        ValueError: it is not base64; the message says why and repeats nothing of it.
    """
    text = text.strip()
    if text[:5].lower() == "data:":
        header = HEADER.match(text)
        if not header:
            raise ValueError("a data: URL that is not base64")
        text = unquote(text[header.end() :])  # a URL may escape + / =
    elif "," in text:
        raise ValueError("not base64: it has a comma, and is one picture, not a list")
    text = re.sub("[\r\n]+", "", text)
    if not text:
        raise ValueError("an empty file")
    if " " in text:
        raise ValueError("not base64: it has spaces; a form writes + as %2B")
    bare = text.rstrip("=")
    standard = STANDARD.fullmatch(bare)
    if not standard and not URL_SAFE.fullmatch(bare):
        raise ValueError("not base64: it has other characters, or mixes two alphabets")
    missing = -len(bare) % 4
    if missing == 3 or text[len(bare) :] not in ("", "=" * missing):
        raise ValueError("not base64: it is cut off or wrongly padded")
    return base64.b64decode(bare + "=" * missing, "+/" if standard else "-_")


def split(text: str) -> list[str]:
    """Return the items of a list that is split at commas; the comma of a `data:` URL splits nothing."""
    items: list[str] = []
    for part in text.split(","):
        last = items[-1].strip().lower() if items else ""
        if last.startswith("data:") and "," not in last:
            items[-1] += "," + part
        else:
            items.append(part)
    return items
