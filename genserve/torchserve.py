"""TorchServe's side of every handler: rows in, replies out, and a bad row costs nobody else anything.

The host calls `handle(data, context)` with one dict a request and wants as many answers back. How a client's
fields arrive depends on how it sent them: a dict under "body" for JSON, raw bytes for anything else, separate
fields for forms and query strings.
"""

import json
import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from genserve.api import BadRequest, DiffusionRequest, parse
from genserve.diffusion import Sampler, See
from genserve.engine import Engine, Finished
from genserve.export import Spec, load_model
from genserve.replies import Film, Reply, answer, failure, film_for, refusal

log = logging.getLogger(__name__)

PHRASES = {200: "OK", 400: "Bad Request", 500: "Internal Server Error"}


def fields_of(row: dict[str, Any], headers: dict[str, str]) -> tuple[dict[str, Any], bool]:
    """Return one request's fields, and whether their values are text (a form or a query string).

    Raises:
        BadRequest: the body is not a JSON object, or cannot be read at all, or fields come beside it.
    """
    if headers.get("explain") == "True":  # the host's own header, on /explanations
        raise BadRequest("task", "this model explains nothing", "POST /predictions")
    row = dict(row)
    body = row.pop("body", None)
    text = {name: _text(name, value) for name, value in row.items() if name != "model_name"}
    if isinstance(body, (bytes, bytearray, str)):
        body = _json(body) if body.strip() else None
    if body is None:
        sent = {name.lower(): value for name, value in headers.items()}
        if not text and sent.get("content-length", "0") != "0":
            # `curl -d '{...}'` without a content type is taken for a form, of which the host finds no field.
            raise BadRequest(
                "body",
                "the body is neither JSON nor form fields",
                "a JSON body wants Content-Type: application/json",
            )
        return text, True
    if not isinstance(body, dict):
        raise BadRequest("body", "the body is not a JSON object", 'a JSON object, such as {"num_samples": 4}')
    if text:
        raise BadRequest("body", "fields both in a JSON body and beside it", "one or the other")
    return body, False


def _text(name: str, value: Any) -> str:
    if isinstance(value, (bytes, bytearray)):
        return value.decode(errors="replace")
    if isinstance(value, str):
        return value
    # The host parses a part that was sent as a JSON file.
    raise BadRequest(name[:40], "not text", "a form field without a content type of its own")


def _json(body: bytes | bytearray | str) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest(
            "body",
            "the body is not JSON",
            'nothing, form fields, or a JSON object such as {"num_samples": 4}',
        ) from None


@dataclass(frozen=True)
class Admitted:
    """A good request on its way through the engine."""

    request: DiffusionRequest
    film: Film
    at: float  # time.perf_counter


class EngineHandler(ABC):
    """A handler of one family: the subclass says which requests it takes and which sampler answers one.

    The engine runs a batch of rows together, whatever their settings, to the end of the longest.
    """

    Request: ClassVar[type[DiffusionRequest]]

    spec: Spec
    device: torch.device

    @abstractmethod
    def sampler(self, request: DiffusionRequest, see: See) -> Sampler:
        """Return the sampler of a resolved request, `watched` by `see`."""

    def initialize(self, context: Any) -> None:
        """Load the archive that TorchServe unpacked; on a GPU where there is one, without being told."""
        config = context.model_yaml_config or {}
        settings = config.get("handler", {})
        gpu = context.system_properties.get("gpu_id")
        use_gpu = gpu is not None and torch.cuda.is_available()
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(settings.get("threads") or max(1, cores // config.get("maxWorkers", 1)))
        self.version = str(context.manifest["model"]["modelVersion"])
        directory = Path(context.system_properties["model_dir"])
        self.load(
            directory,
            torch.device("cuda", int(gpu)) if use_gpu else torch.device("cpu"),
            settings.get("budget", 64),
        )

    def load(self, directory: Path, device: torch.device, budget: int = 64) -> None:
        """Load model.pt and model.json, and evaluate a little, so that the first client does not wait for it.

        Args:
            budget: most images in one evaluation.
        """
        self.spec, model = load_model(directory, device)
        self.device = device
        self.engine = Engine(model, budget)
        for n in (1, budget, 1, budget):  # TorchScript specialises itself on its first two calls
            x = torch.zeros(n, *self.spec.shape, device=device)
            with torch.no_grad():
                model(x, torch.ones(n, device=device), torch.zeros(n, dtype=torch.long, device=device))
        log.info("loaded model=%s device=%s threads=%d", self.spec.name, device, torch.get_num_threads())

    def describe(self) -> Reply:
        """Return what this model is and how it runs."""
        running = {
            "version": self.version,
            "mode": "batched",
            "device": str(self.device),
            "precision": "fp32",
            "threads": torch.get_num_threads(),
        }
        return Reply(json.dumps(asdict(self.spec) | running).encode(), "application/json")

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[bytes]:
        """Answer a batch of rows, in their order."""
        replies = self.replies(data, [context.get_all_request_header(i) for i in range(len(data))])
        for i, reply in enumerate(replies):
            context.set_response_status(reply.status, PHRASES[reply.status], i)
            context.set_response_content_type(i, reply.content_type)
            for name, value in reply.headers.items():
                context.set_response_header(i, name, value)
        return [reply.body for reply in replies]

    def replies(self, data: list[dict[str, Any]], headers: list[dict[str, str]]) -> list[Reply]:
        """Answer a batch of rows and their headers, in their order; each succeeds or fails by itself."""
        replies: dict[Hashable, Reply] = {}
        admitted: dict[Hashable, Admitted] = {}
        for i, (row, sent) in enumerate(zip(data, headers, strict=True)):
            try:
                request = parse(self.Request, *fields_of(row, sent)).resolved(self.spec)
                if request.task == "describe":
                    replies[i] = self.describe()
                    continue
                film = film_for(request)
                self.engine.admit(i, self.sampler(request, film.see))
                admitted[i] = Admitted(request, film, time.perf_counter())
            except BadRequest as error:
                replies[i] = refusal(error)
            except Exception:  # ours: it must not reach the host, which would fail the whole batch
                log.exception("failed row=%d", i)
                replies[i] = failure()
        while self.engine.busy:
            for ended in self.engine.tick():
                replies[ended.key] = self.reply(ended, admitted[ended.key])
        return [replies[i] for i in range(len(data))]

    def reply(self, ended: Finished, admitted: Admitted) -> Reply:
        """Return the answer to a request whose sampler has ended."""
        try:
            if ended.error is not None:
                raise ended.error
            sampled = time.perf_counter()
            reply = answer(admitted.request, self.spec, ended, admitted.film)
        except torch.AcceleratorError:
            log.exception("the device is lost until this process ends: the host starts another")
            os._exit(1)
        except Exception:
            log.exception("failed request=%s", admitted.request)
            return failure()
        timing = {"sample": sampled - admitted.at, "encode": time.perf_counter() - sampled}
        reply.headers["X-Model-Version"] = self.version
        reply.headers["Server-Timing"] = ", ".join(f"{name};dur={1000 * s:.1f}" for name, s in timing.items())
        return reply
