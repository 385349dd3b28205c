"""A client of a genserve server that asks for much: several requests at a time, none lost, in order.

A seed makes a request's answer the same whenever it is asked, so asking again is always safe: a full queue, a
server that restarts and a connection that breaks are waited out. A server that wants a token gets the one
in the environment's GENSERVE_TOKEN. Needs requests, which a server does without.
"""

import json
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 30.0, 30.0)  # between the tries: two minutes in all at least
SERVER_WAIT_MAX_S = 300.0  # as long as a busy server may ask for between two of them
CONNECT_S = 10
ANSWER_S = 140  # a little longer than a server's own deadline, which says more


def answers(address: str, requests: Iterable[dict[str, Any]], in_flight: int = 8) -> Iterator[dict[str, Any]]:
    """Yield the JSON answer to each request, in their order.

    Requests are taken as there is room: at most `in_flight` are at the server, and as many more wait here or
    are answered already. The server's own faults are retried, with growing waits, or after the time that a
    busy server names. Until it has answered once, a server that cannot be reached is an error at once: the
    address may be wrong.

    Args:
        address: of a model, such as http://127.0.0.1:8080/predictions/diffusion.
        requests: their fields; format json.
        in_flight: requests at the server at a time.

    Raises:
        ValueError: the server refuses a request, which is named by field, message and what is allowed; or it
            cannot be reached, or is at fault whenever it is asked.
    """
    import requests as http

    reached, over = threading.Event(), threading.Event()
    sessions = _Sessions(http.Session)

    def answer(fields: dict[str, Any]) -> dict[str, Any]:
        for wait in (*WAITS_S, None):
            longer = 0.0
            try:
                post = sessions.of_this_thread().post
                reply = post(address, json=fields, timeout=(CONNECT_S, ANSWER_S), allow_redirects=False)
            except http.Timeout as error:
                raise ValueError(f"{address} does not answer ({error})") from error
            except (http.ConnectionError, http.exceptions.ChunkedEncodingError) as error:
                if wait is None or not reached.is_set():
                    raise ValueError(f"{address} does not answer ({error})") from error
            except http.RequestException as error:  # the address is none
                raise ValueError(f"{address} does not answer ({error})") from error
            else:
                reached.set()
                if wait is None or not worth_a_retry(reply.status_code, reply.content):
                    return checked(reply.status_code, reply.content)
                longer = retry_after(reply.headers.get("Retry-After", ""))
            if over.wait(max(wait, longer)):
                break
        raise ValueError("given up: another request failed")

    try:
        yield from mapped(answer, requests, in_flight, over.set)
    finally:
        over.set()
        sessions.close()


class _Sessions:
    """A session for each thread: one is not made for several. No proxy of the environment comes between.

    Nor does a password of ~/.netrc, which would come in the token's place.
    """

    def __init__(self, kind: Callable[[], Any]) -> None:
        self._kind, self._local = kind, threading.local()
        self._all: list[Any] = []

    def of_this_thread(self) -> Any:
        """Return the session of the calling thread."""
        if not hasattr(self._local, "session"):
            session = self._local.session = self._kind()
            session.trust_env = False
            if token := os.environ.get("GENSERVE_TOKEN"):
                session.headers["Authorization"] = f"Bearer {token}"
            session.verify = os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR") or True
            self._all.append(session)
        return self._local.session

    def close(self) -> None:
        """Close the connections of every session."""
        for session in self._all:
            session.close()


def mapped(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    n: int,
    failed: Callable[[], object] = lambda: None,
) -> Iterator[Result]:
    """Yield function(item) of each item in their order, from n threads; at most 2 n items are under way.

    Args:
        failed: called when no more results are wanted, so that those at work may end early.

    Raises:
        ValueError: n < 1; and whatever the function raises, at that item's turn.
    """
    if n < 1:
        raise ValueError(f"at least 1 must be in flight, got {n}")
    under_way: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(n) as pool:
        try:
            for item in items:
                under_way.append(pool.submit(function, item))
                if len(under_way) == 2 * n:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            failed()
            pool.shutdown(wait=False, cancel_futures=True)


def worth_a_retry(status: int, body: bytes) -> bool:
    """Return whether an answer is the fault of a server that may soon be well again.

    A full queue or no worker (503), a worker that died (500), a proxy without a server (502, 504) or one that
    finds this client too fast (429). What the handler itself reports, with a `field`, would only come again.
    """
    return (status >= 500 or status == 429) and "field" not in _object(body)


def retry_after(header: str) -> float:
    """Return the seconds that a Retry-After header asks for, 0 if there is none or it is a date."""
    return min(float(header), SERVER_WAIT_MAX_S) if header.isascii() and header.isdigit() else 0.0


def checked(status: int, body: bytes) -> dict[str, Any]:
    """Return an answer's JSON.

    Raises:
        ValueError: it is an error; the message names field, message and what is allowed.
    """
    answer = _object(body)
    if status == 200:
        return answer
    if "field" in answer:
        raise ValueError(answer["error"])
    message = answer.get("message") or body.decode(errors="replace")[:200]  # the host's own, or a proxy's
    raise ValueError(f"server: {message} (status {status})")


def _object(body: bytes) -> dict[str, Any]:
    """Return a JSON object, or an empty one where the body is none."""
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
