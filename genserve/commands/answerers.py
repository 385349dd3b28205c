"""Who answers the requests of `genserve generate`: a server, or the handler of a run in this process."""

import importlib.util
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from genserve.drawing.client import answers, checked, mapped
from genserve.families import FAMILIES
from genserve.places import PROJECT

Fields = dict[str, Any]  # of a request
Answers = Iterator[dict[str, Any]]
Draw = Callable[[Iterable[list[Fields]]], Answers]  # requests that go together -> their JSON answers
SHARE = 16  # pictures per request
ON_GPU = 2**19  # pixel values in one evaluation: a GPU has time for many
REQUESTS_PER_CORE = 4  # two full batches for each of a server's cores: one evaluated, one on its way
OPEN_MAX = 64  # requests that a server evaluates together; more would only wait in its queue


def from_server(address: str, in_flight: int | None) -> Draw:
    """Return what asks a server, by enough requests at a time to keep it busy.

    Args:
        address: of a model, such as http://127.0.0.1:8080/predictions/diffusion.
        in_flight: requests at the server at a time; if not given, four for each of its cores, at most 64.
    """

    def draw(groups: Iterable[list[Fields]]) -> Answers:
        n = in_flight
        if n is None:
            (model,) = answers(address, [{"task": "describe"}])
            n = min(OPEN_MAX, REQUESTS_PER_CORE * model["threads"])
        return answers(address, chain.from_iterable(groups), n)

    return draw


def from_run(directory: Path) -> tuple[Draw, int]:
    """Answer as the server would, in this process: the same handler over the same exported model.

    Returns:
        What draws, and how many requests it wants together. A handler evaluates these and nothing else, in
        a thread and a core of its own, so that rounding does not depend on what else is drawn. On a GPU there
        are two handlers: while it evaluates for one, the other writes PNGs.
    """
    import torch

    from genserve.runs.directory import model_config
    from genserve.runs.export import export

    model = model_config(directory)
    handler_class = handler_of(model.family)
    device, workers, together = torch.device("cpu"), cores(), 1
    if torch.cuda.is_available():
        gpu = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
        values = SHARE * model.shape[0] * model.shape[1] * model.shape[2]
        device, workers, together = torch.device("cuda", gpu), 2, max(1, ON_GPU // values)

    def draw(groups: Iterable[list[Fields]]) -> Answers:
        idle: list[Any] = []
        loading = threading.Lock()

        def answer(group: list[Fields]) -> list[dict[str, Any]]:
            with loading:
                handler = idle.pop() if idle else loaded(handler_class(), Path(exported), device, together)
            replies = handler.replies([{"body": fields} for fields in group], [{}] * len(group))
            idle.append(handler)
            return [checked(reply.status, reply.body) for reply in replies]

        with tempfile.TemporaryDirectory() as exported:
            export(directory, Path(exported))
            for several in mapped(answer, groups, workers):
                yield from several

    return draw, together


def handler_of(family: str) -> Any:
    """Return the handler class of a family, from the file that its archives carry."""
    file, name = FAMILIES[family].handler
    spec = importlib.util.spec_from_file_location(Path(file).stem, PROJECT / file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def loaded(handler: Any, folder: Path, device: Any, together: int) -> Any:
    """Return a handler that evaluates this many requests at once, in one thread, however long it takes."""
    handler.load(folder, device, budget=SHARE * together, lanes=1)
    handler.deadline_s = 86400.0
    return handler


def cores() -> int:
    """Return how many cores this rank may use: those of the machine are shared out among its ranks."""
    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, n // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
