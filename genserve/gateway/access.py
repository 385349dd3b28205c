"""Who is let in: programs by a token in a header, browsers by a cookie that a small page gives for a token.

A gateway without tokens listens on loopback only (Options), and lets in what runs on this machine: no page
from elsewhere in a browser.
"""

import hashlib
import hmac
from dataclasses import replace
from html import escape
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Form, Request
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from genserve.gateway.errors import answer
from genserve.gateway.options import Tokens
from genserve.operate.origins import crossed, foreign

LOGIN, COOKIE = "/login", "genserve"
OPEN = ("/live", LOGIN)  # to everybody
PAGES = ("/", "/docs", "/page", "/page/")  # that a link on a page from elsewhere may lead to
ADMIN, CLIENT = "admin", "client"
BEARER = {"WWW-Authenticate": 'Bearer realm="genserve"'}
HTML = {"X-Frame-Options": "DENY", "Cache-Control": "no-store"}
FORM = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>genserve</title>
<style>body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 24rem; margin: 20vh auto; padding: 0 1rem }}
input, button {{ font: inherit; width: 100%; box-sizing: border-box; padding: .5rem; margin: .25rem 0 }}
@media (prefers-color-scheme: dark) {{ body {{ background: #111; color: #eee }} }}</style></head>
<body><main><h1>genserve</h1><form method="post">
<p role="alert">{problem}</p>
<label>Token <input type="password" name="token" autocomplete="current-password" required autofocus></label>
<input type="hidden" name="next" value="{next}"><button>Open</button></form></main></body></html>
"""

router = APIRouter(include_in_schema=False)


class Access:
    """The middleware that lets requests in; it notes the role of each as the state's `role`.

    Args:
        app: gets what is let in.
        tokens: that open it.
    """

    def __init__(self, app: ASGIApp, tokens: Tokens) -> None:
        self._app, self._tokens, self._sealed = app, tokens, sealed(tokens)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in or refuse it."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if refusal := self._let_in(scope, headers) if self._tokens.set else _strange(scope, headers):
                await refusal(scope, receive, send)
                return
        elif scope["type"] == "websocket":  # no route has one
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._app(scope, receive, send)

    def _let_in(self, scope: Scope, headers: Headers) -> Response | None:
        """Note the role that a request's token has; return the refusal of one without."""
        role = self._role(headers, HTTPConnection(scope).cookies.get(COOKIE, ""))
        scope.setdefault("state", {})["role"] = role
        if role or scope["path"] in OPEN:
            return None
        if scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            query = f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else ""
            back = urlencode({"next": quote(scope["path"]) + query})
            return RedirectResponse(f"{LOGIN}?{back}", 303)
        message = "not a token of this gateway (allowed: Authorization: Bearer TOKEN)"
        return answer(401, message, BEARER)

    def _role(self, headers: Headers, cookie: str) -> str | None:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._tokens.role(token.strip())
        # browsers send the cookie for pages on other ports of this host, too
        return self._sealed.role(cookie) if cookie and not crossed(headers.get) else None


def _strange(scope: Scope, headers: Headers) -> Response | None:
    """Note that everybody is admitted to everything; return the refusal of a page from elsewhere."""
    scope.setdefault("state", {})["role"] = ADMIN
    reason = foreign(headers.get)
    follows_a_link = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
    if not reason or (follows_a_link and scope["path"] in PAGES and "Host" not in reason):
        return None
    return answer(403, f"a gateway without tokens answers this machine's own programs only: {reason}")


def sealed(tokens: Tokens) -> Tokens:
    """Return what the cookies of these tokens hold: each stands for its token and does not reveal it."""

    def seal(token: str | None) -> str | None:
        return token and hmac.new(token.encode(), COOKIE.encode(), hashlib.sha256).hexdigest()

    return replace(tokens, client=seal(tokens.client), admin=seal(tokens.admin))


def administers(scope: Scope) -> bool:
    """Return whether who has sent a request may administrate."""
    state: dict[str, Any] = scope.get("state", {})
    return state.get("role") == ADMIN


def admin(request: Request) -> None:
    """Refuse who may not administrate; for `Depends` of routes.

    Raises:
        HTTPException: 403.
    """
    if not administers(request.scope):
        raise HTTPException(403, "this address needs the admin token")


@router.get(LOGIN)
def ask_token(next: str = "/") -> Response:
    """Return a page that asks for a token."""
    return HTMLResponse(FORM.format(problem="", next=escape(local(next))), headers=HTML)


@router.post(LOGIN)
def take_token(
    request: Request, token: Annotated[str, Form()], next: Annotated[str, Form()] = "/"
) -> Response:
    """Give a browser the cookie of its token, and lead it to the page that it came for."""
    tokens: Tokens = request.app.state.gateway.options.tokens
    role = tokens.role(token.strip())
    if role is None:
        problem = "This is not a token of this gateway."
        return HTMLResponse(FORM.format(problem=problem, next=escape(local(next))), 401, HTML | BEARER)
    reply = RedirectResponse(local(next), 303)
    value = str(getattr(sealed(tokens), role))
    secure = request.url.scheme == "https"
    reply.set_cookie(COOKIE, value, path="/", httponly=True, samesite="strict", secure=secure)
    return reply


@router.get("/logout")
def forget_token() -> Response:
    """Take the cookie away."""
    reply = RedirectResponse(LOGIN, 303)
    reply.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return reply


def local(address: str) -> str:
    """Return an address of this gateway as it is, and for any other one the first page."""
    plain = address.isascii() and address.isprintable() and "\\" not in address
    return address if plain and address.startswith("/") and not address.startswith("//") else "/"
