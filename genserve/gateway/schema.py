"""The gateway's own description, for programs and for people: /openapi.json, and /docs without internet.

The fields of models are those of the server's requests (genserve.serving.requests), with their ranges,
defaults and meanings. Each model that is registered has a path; without a server, one of each family.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fastapi_offline
from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from genserve.families import FAMILIES, SERVED, load
from genserve.gateway.models import described
from genserve.gateway.state import Gateway, Shared
from genserve.gateway.upstream import UpstreamError
from genserve.operate.archive import SHIPPED
from genserve.serving.fields import Fields, allowed, choices, files

ASSETS, SCHEMA = "/static-offline-docs", "/openapi.json"
JSON, FORM = "application/json", "multipart/form-data"
EXPLAINED = "explain"  # a task of families that have the address /explanations
ABOUT = (
    "Models behind a TorchServe. Every field may be left out. Fields go into a JSON body, a form, multipart, "
    "or a query string; what they do, and what answers look like, is in docs/api.md."
)
LIMITS = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}
PLAIN = ("type", "format", "items", "maxLength", "minLength", "enum", *LIMITS.values())
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
EXAMPLES: dict[str, Any] = {  # of fields that have neither a default nor a list of values
    "seed": 1, "seed_to": 2, "label": 7, "columns": 4, "steps": 18, "eta": 0.5, "frames": 10, "guidance": 2.0,
    "strength": 0.5, "resample": 4, "sigma": 0.5, "step_size": 0.1, "noise": 0.5, "truncation": 1.0,
    "temperature": 0.8, "draws": 8, "top_k": 5, "top_p": 0.9, "tta": 1, "order": 2, "stop": ["\n"],
    "prompt": "It is a truth", "text": "river", "init_image": PIXEL, "images": PIXEL, "mask": PIXEL,
}  # fmt: skip
ERROR = {
    "type": "object",
    "required": ["error", "message"],
    "properties": {
        "error": {"type": "string", "description": "one line for people"},
        "field": {"type": "string", "description": "what is wrong; absent if it is no field"},
        "message": {"type": "string"},
        "allowed": {"type": "string", "description": "what would be right"},
    },
}
REFUSALS = {
    400: "a field is wrong", 401: "no token of this gateway", 404: "there is no such model",
    408: "the body came too slowly", 413: "the body is too long", 415: "the body is compressed",
    429: "too much of one client; Retry-After says when to come again",
    503: "the server is busy or away; Retry-After says when to come again",
}  # fmt: skip

router = APIRouter(include_in_schema=False)


def install(app: FastAPI) -> None:
    """Give an app its description."""
    app.include_router(router)
    static = Path(fastapi_offline.__file__).parent / "static"
    app.mount(ASSETS, StaticFiles(directory=static), name="assets of /docs")


@router.get(SCHEMA)
async def openapi(request: Request, gateway: Shared) -> dict[str, Any]:
    """Return the description of the models that are registered now."""
    models = await _families(gateway) or one_of_each()
    return await asyncio.to_thread(schema, request.app, models)  # the first one imports much


@router.get("/docs")
def docs() -> HTMLResponse:
    """Return a page on which every address can be tried."""
    return get_swagger_ui_html(
        openapi_url=SCHEMA,
        title="genserve",
        swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{ASSETS}/swagger-ui.css",
        swagger_favicon_url=f"{ASSETS}/favicon.png",
    )


def schema(app: FastAPI, models: Mapping[str, str]) -> dict[str, Any]:
    """Return the OpenAPI of an app in front of these models.

    Args:
        models: name -> family.
    """
    document = get_openapi(title=app.title, version=app.version, description=ABOUT, routes=app.routes)
    components = document.setdefault("components", {}).setdefault("schemas", {})
    components["Error"] = ERROR
    for family in sorted(set(models.values())):
        components[family] = fields_of(family, JSON)
        components[f"{family}-form"] = fields_of(family, FORM)
    for name, family in models.items():
        document["paths"] |= _paths(name, family)
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)  # ours are 400
            operation["responses"].setdefault("default", _refusal("see `error`"))
    return document


def one_of_each() -> dict[str, str]:
    """Return a model of each family that is served, under the name that its archive has here."""
    names = {run.split("/")[1].split("-")[0]: name for name, run in reversed(SHIPPED.items())}
    return {names.get(family, family): family for family in SERVED}


def fields_of(family: str, form: str) -> dict[str, Any]:
    """Return the schema of a family's fields.

    Args:
        form: the content type of a body; files are files in multipart, and base64 in JSON.
    """
    kind: type[Fields] = load(FAMILIES[family].request)
    own = kind.model_json_schema()["properties"]
    properties = {name: _field(kind, name, own[name], form) for name in kind.model_fields}
    return {"type": "object", "additionalProperties": False, "title": family, "properties": properties}


def example(kind: type[Fields], name: str) -> Any:
    """Return a value that a field may have."""
    default = kind.model_fields[name].default
    if default is not None:
        return default
    values = choices(kind, name)
    return values[0] if values else EXAMPLES.get(name)


def _field(kind: type[Fields], name: str, own: dict[str, Any], form: str) -> dict[str, Any]:
    field = kind.model_fields[name]
    types = [_type(one) for one in own.get("anyOf", [own])]
    types = [one for one in types if one.get("type") != "null"]
    if values := choices(kind, name):
        types = [{"enum": own.get("enum", values)}]
    file = name in files(kind)
    if file and form == FORM:
        types = [{"type": "string", "format": "binary"}]
    result: dict[str, Any] = types[0] if len(types) == 1 else {"anyOf": types}
    result["description"] = f"{field.description} (allowed: {allowed(kind, name)})"
    if field.default is not None:
        result["default"] = field.default
    if not (file and form == FORM):
        result["example"] = example(kind, name)
    return result


def _type(own: dict[str, Any]) -> dict[str, Any]:
    """Return pydantic's schema of a type in the words of OpenAPI."""
    result = {LIMITS.get(word, word): value for word, value in own.items() if word in (*LIMITS, *PLAIN)}
    if result.get("format") == "binary":
        result["format"] = "byte"
    if isinstance(result.get("items"), dict):
        parts = result["items"].get("anyOf", [result["items"]])
        result["items"] = {"anyOf": [_type(part) for part in parts]} if len(parts) > 1 else _type(parts[0])
    return result


def _paths(name: str, family: str) -> dict[str, Any]:
    """Return the addresses of a model."""
    kind: type[Fields] = load(FAMILIES[family].request)
    body = {
        "content": {
            JSON: {"schema": {"$ref": f"#/components/schemas/{family}"}, "example": _first(kind)},
            FORM: {"schema": {"$ref": f"#/components/schemas/{family}-form"}},
        }
    }
    query = [
        {"name": field, "in": "query", "schema": values, "description": values["description"]}
        for field, values in fields_of(family, JSON)["properties"].items()
        if field not in files(kind)
    ]
    for values in query:
        values["schema"].pop("example")  # Swagger would send all of them

    def operation(verb: str, summary: str, **more: Any) -> dict[str, Any]:
        about = {"operationId": f"{verb}_{name}", "summary": summary, "tags": [name]}
        return about | {"responses": _answers(kind)} | more

    paths = {
        f"/predictions/{name}": {
            "post": operation("post", f"Ask {name}, of the family {family}", requestBody=body),
            "get": operation("get", f"Ask {name} by a query string", parameters=query),
        }
    }
    if EXPLAINED in choices(kind, "task"):
        paths[f"/explanations/{name}"] = {"post": operation("explain", f"Ask {name} why", requestBody=body)}
    return paths


def _first(kind: type[Fields]) -> dict[str, Any]:
    """Return a body that is a good first request."""
    usual = {"num_samples": 4, "seed": 1, "text": "river"}
    pictures = {"images": PIXEL} if "images" in kind.model_fields and "seed" not in kind.model_fields else {}
    return {name: value for name, value in usual.items() if name in kind.model_fields} | pictures


def _answers(kind: type[Fields]) -> dict[str, Any]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    types = {"png": "image/png", "gif": "image/gif", "npy": "application/x-npy", "zip": "application/zip"}
    formats = choices(kind, "format")
    content: dict[str, Any] = {types[name]: binary for name in formats if name in types}
    content[JSON] = {"schema": {"type": "object"}}
    answer = {"description": "what was asked for", "content": content}
    return {"200": answer} | {str(status): _refusal(text) for status, text in REFUSALS.items()}


def _refusal(text: str) -> dict[str, Any]:
    return {"description": text, "content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}}


async def _families(gateway: Gateway) -> dict[str, str]:
    """Return the family of each model that is ours and answers."""

    async def family(name: str) -> str | None:
        try:
            return str((await described(gateway, name) or {}).get("family"))
        except UpstreamError:
            return None

    try:
        names = sorted(await gateway.upstream.models())
    except UpstreamError:
        return {}
    families = await asyncio.gather(*(family(name) for name in names))
    return {name: one for name, one in zip(names, families, strict=True) if one in SERVED}
