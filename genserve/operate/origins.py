"""Requests that a page in a browser makes which is not ours, by the headers that the browser sends along.

A browser lets any page ask this machine's ports. It names the page (Origin), says if the page is of another
site (Sec-Fetch-Site), and a name of another site that has been pointed at loopback stays in Host.
"""

import re
from collections.abc import Callable

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
OTHERS = ("cross-site", "same-site")  # Sec-Fetch-Site of a request that another page makes

Header = Callable[[str], str | None]  # takes a name in any case, and returns the value


def foreign(header: Header) -> str:
    """Return what shows that not this machine's own program or page asks, "" if nothing does."""
    host = header("Host") or LOOPBACK[0]
    if re.sub(r":\d+$", "", host) not in LOOPBACK:
        return "Host is not a name of loopback"
    return crossed(header)


def crossed(header: Header) -> str:
    """Return what shows that a page of another origin asks, "" if nothing does."""
    host, origin = header("Host") or LOOPBACK[0], header("Origin")
    if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
        return "the Origin is a page from elsewhere"
    if header("Sec-Fetch-Site") in OTHERS:
        return "a page from elsewhere asks"
    return ""
