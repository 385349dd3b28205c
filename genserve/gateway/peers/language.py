"""Texts and words as other servers answer them; `/generate` here chooses between a text and pictures."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from pydantic import Field, ValidationError

from genserve.gateway.peers.asking import Asking, Strict
from genserve.gateway.peers.pictures import ByFamily, written
from genserve.gateway.state import Gateway, Shared
from genserve.serving.fields import BadRequest

Word = Annotated[str, Field(min_length=1, max_length=100)]
router = APIRouter(tags=["routes of other servers"])


class Continued(Strict):
    """A text that goes on from a word."""

    start_word: Word
    length: int = Field(50, ge=1, le=1000)
    seed: int | None = Field(None, ge=0)


class OneWord(Strict):
    """A word, and how many that are like it."""

    word: Word
    top_k: int = Field(5, ge=1, le=1000)


@router.post("/generate")
async def generate(
    gateway: Shared, request: Request, sent: Annotated[dict[str, Any], Body()]
) -> dict[str, Any]:
    """Draw pictures into a file, or with a `start_word` go on writing from it."""
    try:
        if "start_word" in sent:
            return await continued(gateway, request, Continued(**sent), "ngram", order=2)
        return await written(gateway, request, ByFamily(**sent))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "body"
        raise BadRequest(name, first["msg"], "{model_type, num_samples} or {start_word, length}") from error


@router.post("/generate_with_rnn")
async def generate_with_rnn(gateway: Shared, request: Request, sent: Continued) -> dict[str, Any]:
    """Go on writing from a word with the recurrent network."""
    return await continued(gateway, request, sent, "text")


async def continued(
    gateway: Gateway, request: Request, sent: Continued, model: str, **fields: Any
) -> dict[str, Any]:
    """Return a text that begins with a word."""
    asking = Asking(gateway, request, model)
    written = await asking.json(prompt=sent.start_word, length=sent.length, seed=sent.seed, **fields)
    return {"generated_text": sent.start_word + written["texts"][0]["text"]}


@router.post("/embed")
async def embed(gateway: Shared, request: Request, sent: OneWord) -> dict[str, Any]:
    """Return the vector of a word."""
    (row,) = (await Asking(gateway, request, "words").json(task="vector", text=sent.word))["texts"]
    return {"word": sent.word, "dim": len(row["vector"]), "vector": row["vector"]}


@router.post("/similar")
async def similar(gateway: Shared, request: Request, sent: OneWord) -> dict[str, Any]:
    """Return the words that are most like one."""
    answered = await Asking(gateway, request, "words").json(text=sent.word, top_k=sent.top_k)
    (row,) = answered["texts"]
    return {"results": [{"token": near["word"], "score": near["score"]} for near in row["nearest"]]}
