"""Predictions and explanations, passed on to the server and back as they are; nothing else of the host is.

What differs from the host itself: a query string works at every address, the host's own errors have the form
of all others, and a client that leaves is noticed at once.
"""

import json
import logging
from urllib.parse import parse_qsl, quote

import anyio
from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from genserve.gateway.errors import answer
from genserve.gateway.leaving import while_there
from genserve.gateway.state import Gateway
from genserve.gateway.upstream import Answer, UpstreamError
from genserve.serving.fields import BadRequest

log = logging.getLogger(__name__)
METHODS = ("GET", "POST")
PATHS = ("/predictions/{model}", "/predictions/{model}/{version}", "/explanations/{model}")
# of a request; what else the host believes of headers chooses tasks, sequences and addresses
PASSED_ON = ("content-type", "content-encoding", "accept", "inference-header-content-length")
# of an answer: what concerns one connection only (RFC 9110, section 7.6.1), and what the gateway says itself
DROPPED = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
     b"date", b"server")
)  # fmt: skip
QUERY_MAX = 3500  # characters: the host takes a first line of 4,096
VERSION_MAX = 64
RESERVED = ("explanations", "models", "ping", "predictions", "v1", "v2")  # begin other addresses of the host
SEND_S = 60.0  # that a client may leave a part of an answer unread
OF_A_WORKER = "x-model-version"  # every answer of a worker has it; what has not is the host's own
HOST_ERRORS = {  # type of an error of the host: status and what it means
    "ErrorDataDecoderException": (400, "the form cannot be read"),
    "IllegalArgumentException": (400, "the address cannot be read"),
    "ModelNotFoundException": (404, "there is no such model"),
    "ModelVersionNotFoundException": (404, "the model has no such version"),
    "ServiceUnavailableException": (503, "the server is busy"),
}


class Proxy:
    """The ASGI program behind the addresses of models.

    Args:
        path: of its route; the first word is what the server is asked for.
    """

    def __init__(self, path: str) -> None:
        self.path, self._kind = path, path.split("/")[1]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; raises as `Upstream.asked` and `while_there`."""
        if scope["method"] == "HEAD":
            raise HTTPException(405, headers={"Allow": ", ".join(METHODS)})
        gateway: Gateway = scope["app"].state.gateway
        path = _path(self._kind, scope)
        headers = _passed_on(Headers(scope=scope))
        body = await Request(scope, receive).body()
        await gateway.upstream.check(scope["path_params"]["model"])
        passing = _pass_on(gateway, scope["method"], path, headers, body, send)
        if own := await while_there(receive, passing):
            await own(scope, receive, send)


def install(app: FastAPI) -> None:
    """Give an app the addresses of models; `schema` describes them."""
    for path in PATHS:
        app.router.routes.append(Route(path, Proxy(path), methods=METHODS, name=path))


async def _pass_on(
    gateway: Gateway, method: str, path: str, headers: dict[str, str], body: bytes, send: Send
) -> Response | None:
    """Send a request to the server and its answer to the client; return an answer of the gateway's own."""
    begun = False
    try:
        async with gateway.upstream.asked(method, path, headers, body) as result:
            if result.status >= 400 and OF_A_WORKER not in result.headers:
                return await _own_error(result)
            kept = [(name, value) for name, value in result.headers.raw if name.lower() not in DROPPED]
            begun = True
            await send({"type": "http.response.start", "status": result.status, "headers": kept})
            async for chunk in result.body:
                with anyio.fail_after(SEND_S):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
    except (UpstreamError, TimeoutError) as error:
        if not begun:
            raise
        # an answer without its end closes the connection, by which its client knows
        reason = error if isinstance(error, UpstreamError) else "the client does not read"
        log.warning("broken off: %s %s: %s", method, path.partition("?")[0], reason)
    return None


def _path(kind: str, scope: Scope) -> str:
    """Return the address at the server that takes what was sent: it hides a query from the model at others.

    Raises:
        BadRequest: the query cannot be passed on.
    """
    model = quote(scope["path_params"]["model"], safe="")
    version = scope["path_params"].get("version")
    if len(version or "") > VERSION_MAX:
        raise BadRequest("version", "the model has no such version", status=404)
    numbered = f"{model}/{quote(version, safe='')}" if version is not None else model
    query = scope["query_string"].decode("latin-1").replace("#", "%23")
    if not query:
        return f"/{kind}/{numbered}"
    if model in RESERVED:
        raise BadRequest("query", f"a model of the name {model} takes fields in a body only", "no query")
    if len(query) > QUERY_MAX or not (query.isascii() and query.isprintable()):
        allowed = f"{QUERY_MAX} characters that a URL has; more fits into a body"
        raise BadRequest("query", "too long" if len(query) > QUERY_MAX else "not a query string", allowed)
    if kind == "explanations":
        task = dict(parse_qsl(query, keep_blank_values=True)).get("task", "explain")
        if task != "explain":
            raise BadRequest("task", "this address explains", "explain, or /predictions")
        query += "&task=explain"
    return f"/{numbered}/predict?{query}"


def _passed_on(headers: Headers) -> dict[str, str]:
    """Return the headers that go to the server.

    Raises:
        BadRequest: one of them has characters that none has.
    """
    passed = {name: headers[name] for name in PASSED_ON if name in headers}
    for name, value in passed.items():
        if not (value.isascii() and value.isprintable()):
            raise BadRequest(name, "characters that a header does not have", "printable ASCII")
    return passed


async def _own_error(result: Answer) -> Response:
    """Return an error of the host itself in the form that all others have."""
    try:
        values = json.loads(await result.read())
        kind, message = str(values["type"]), str(values["message"])
    except (ValueError, LookupError, TypeError):
        kind, message = "", "the server gives no reason"
    status, meaning = HOST_ERRORS.get(kind, (result.status, "the server failed"))
    retry = {"Retry-After": "1"} if status == 503 else None
    return answer(status, f"{meaning} ({message})", retry)
