"""One request of another server's route, asked of a model here."""

import json
from typing import Annotated, Any, Literal

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import Headers
from starlette.responses import Response

from genserve.gateway.leaving import while_there
from genserve.gateway.quotas import note
from genserve.gateway.state import Gateway
from genserve.serving.fields import BadRequest

FAMILIES = {  # their name -> archives here, the first one that is registered
    "diffusion": ("cifar10", "diffusion"),
    "energy": ("energy-cifar10", "energy"),
    "ebm": ("energy-cifar10", "energy"),
    "gan": ("gan",),
    "vae": ("vae",),
}
Family = Literal["diffusion", "energy", "ebm", "gan", "vae"]
Count = Annotated[int, Field(ge=1, le=64)]


class Strict(BaseModel):
    """What a client sends: no field that it does not have."""

    model_config = ConfigDict(extra="forbid")


class Asking:
    """Asks a model for one of these routes.

    Args:
        gateway, request: of the route.
        names: archives, of which the first one that is registered is asked.
    """

    def __init__(self, gateway: Gateway, request: Request, *names: str) -> None:
        self._gateway, self._request, self._names = gateway, request, names
        self.model = ""

    async def answer(self, **fields: Any) -> tuple[Headers, bytes]:
        """Return headers and body of the answer; None is a field that is not given.

        Raises:
            BadRequest: no such model is registered, or the server refuses a field.
        """
        return await while_there(self._request.receive, self._ask(fields))

    async def json(self, **fields: Any) -> Any:
        """Return an answer of JSON; raises as `answer`."""
        return json.loads((await self.answer(**fields))[1])

    async def _ask(self, fields: dict[str, Any]) -> tuple[Headers, bytes]:
        registered = await self._gateway.upstream.models()
        self.model = next((name for name in self._names if name in registered), "")
        if not self.model:
            build = f"./scripts/build_archives {self._names[-1]}"
            raise BadRequest("model_type", "the server has no such model", f"{build} makes it", 404)
        given = {name: value for name, value in fields.items() if value is not None}
        async with self._gateway.upstream.predict(self.model, given) as answer:
            note(self._request.scope, answer.headers)
            body = await answer.read()
            if answer.status != 200:
                raise _refusal(answer.status, body)
            return answer.headers, body


def _refusal(status: int, body: bytes) -> BadRequest:
    """Return the server's error as one of these routes."""
    try:
        values = json.loads(body)
        parts = [str(values.get(name, "")) for name in ("field", "message", "allowed")]
    except (ValueError, AttributeError):
        parts = ["", "the server failed", ""]
    return BadRequest(parts[0], parts[1], parts[2], status)


def png(headers: Headers, body: bytes) -> Response:
    """Return a picture."""
    kept = {name: headers[name] for name in ("X-Seed", "X-NFE") if name in headers}
    return Response(body, headers=kept, media_type="image/png")
