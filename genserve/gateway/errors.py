"""What goes wrong in the gateway, in the one form that the server's errors have."""

import json
import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from genserve.gateway.upstream import UpstreamError
from genserve.operate.api import ManagementError
from genserve.serving.fields import BadRequest, problem

log = logging.getLogger(__name__)
JSON = "application/json"


def install(app: FastAPI) -> None:
    """Answer every error of the routes of an app in this form."""
    app.add_exception_handler(BadRequest, _bad)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(UpstreamError, _away)
    app.add_exception_handler(ManagementError, _away)
    app.add_exception_handler(Exception, _ours)


def answer(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """Return an error that concerns no field."""
    body = json.dumps({"error": message, "message": message}).encode()
    return Response(body, status, headers, JSON)


def _bad(request: Request, error: Exception) -> Response:
    assert isinstance(error, BadRequest)
    return Response(error.body(), error.status, media_type=JSON)


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"][1:]) or "body"
    return Response(problem(name, first["msg"], ""), 400, media_type=JSON)


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return answer(error.status_code, str(error.detail), dict(error.headers or {}))


def _away(request: Request, error: Exception) -> Response:
    assert isinstance(error, (UpstreamError, ManagementError))
    return answer(error.status, str(error), {"Retry-After": "5"} if error.status == 503 else None)


def _ours(request: Request, error: Exception) -> Response:
    log.error("failed: %s %s", request.method, request.url.path, exc_info=error)
    return answer(500, "the gateway failed; its log says why")
