"""docs/gateway-api.md, out of the gateway's OpenAPI: the addresses, who may ask, and their own fields."""
# ruff: noqa: E501 (prose of a page)

from collections.abc import Iterator, Mapping
from typing import Any

from genserve.gateway.app import create_app
from genserve.gateway.bodies import BODY_MAX, BODY_S
from genserve.gateway.options import Limits, Options
from genserve.gateway.proxy import PATHS
from genserve.gateway.quotas import FREE
from genserve.gateway.schema import SCHEMA, schema

LIMITS = Limits()
HEAD = f"""<!-- Made by `genserve api-docs` from the gateway's OpenAPI: edit the routes in genserve/gateway/. -->
# The API of a gateway

`genserve gateway` listens on http://127.0.0.1:8090. The same as below, with every field of every model, is at `/docs`
for people and at `{SCHEMA}` for programs. Errors have [the server's form](api.md#errors) at every address.

## Models

`GET` and `POST` of these addresses ask the server, with its fields and answers ([api.md](api.md)):

{{models}}
A query string takes the same fields as a form. Nothing else of the host can be reached. A client that leaves frees its
place at once, also without a stream. Errors of the host itself, which have a form of their own there, are 400, 404 and
503 in the form of all others.

## Who is let in

On loopback, this machine's own programs, without a token. Pages from elsewhere in a browser are refused (403), and so
are names that only point at loopback. With tokens, `Authorization: Bearer TOKEN` opens the gateway; browsers get a
cookie at `/login`. Without a token the answer is 401, for routes of administration with the client's token 403.
`/live` is open to everybody.

## How much

A body has at most {BODY_MAX:,} bytes (413) and comes within {BODY_S:g} s (408). A client is a token and an address. It
may ask {LIMITS.requests:,} requests a minute and work of {LIMITS.work:,} a minute (images times evaluations: `X-Work` in
answers), and have {LIMITS.open} requests open; flags of `genserve gateway` change that. More is 429, and `Retry-After`
says when to come again. Work is charged after the answer. A `GET` of one of these, or below it, is free:
{{free}}.

## Addresses

| address | what it does |
|---|---|
"""


def page() -> str:
    """Return the page."""
    document = schema(create_app(Options()), {})
    models = "".join(f"- `{path}`\n" for path in PATHS)
    free = ", ".join(f"`{path}`" for path in FREE)
    head = HEAD.replace("{models}", models).replace("{free}", free)
    sections, rows = "", ""
    for path, method, operation in _operations(document):
        text = operation.get("description", operation["summary"]).partition("\n")[0]
        rows += f"| `{method.upper()} {path}` | {text} |\n"
        if fields := "".join(_fields(document, operation)):
            table = "| field | in | default | meaning |\n|---|---|---|---|\n"
            sections += f"\n## `{method.upper()} {path}`\n\n{table}{fields}"
    return head + rows + sections


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in sorted(document["paths"].items()):
        for method, operation in methods.items():
            yield path, method, operation


def _fields(document: Mapping[str, Any], operation: Mapping[str, Any]) -> Iterator[str]:
    """Yield a row for each field of an address."""
    for field in operation.get("parameters", []):
        if field["in"] != "path":
            yield _row(field["name"], field["in"], field["schema"], field.get("description", ""))
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        body = content["schema"]
        body = document["components"]["schemas"].get(body.get("$ref", "").rpartition("/")[2], body)
        for name, values in body.get("properties", {}).items():
            yield _row(name, kind, values, values.get("description", ""))


def _row(name: str, place: str, values: Mapping[str, Any], meaning: str) -> str:
    default = values.get("default")
    written = (
        "" if default in (None, "") else f"`{str(default).lower() if isinstance(default, bool) else default}`"
    )
    return f"| `{name}` | {place} | {written} | {meaning} |\n"
