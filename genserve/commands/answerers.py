"""Answer the requests of `genserve generate` by a server, or by the service of a run in this process."""

import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from genserve.drawing.client import answers, checked, mapped

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
    """Answer as a server would here, in this process: the same service over the same files.

    Returns:
        What draws, and how many requests it wants together. A service evaluates these and nothing else, in
        a thread and a core of its own, so that rounding does not depend on what else is drawn. On a GPU there
        are two services: while it evaluates for one, the other writes PNGs.
    """
    import torch

    from genserve.backends import OPENVINO, TORCHSCRIPT, usual
    from genserve.compiling.convert import compile_run
    from genserve.families import load
    from genserve.runs.directory import model_config
    from genserve.runs.export import export
    from genserve.serving.service import Running, Service, loaded

    model = model_config(directory)
    kind = load(model.kind.request)
    device, workers, together = torch.device("cpu"), cores(), 1
    if torch.cuda.is_available():
        gpu = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
        values = SHARE * model.shape[0] * model.shape[1] * model.shape[2]
        device, workers, together = torch.device("cuda", gpu), 2, max(1, ON_GPU // values)
    backend = usual(model.kind.compiled) if device.type == "cpu" else TORCHSCRIPT
    running = Running(
        device=device, backend=backend, precision="auto", budget=SHARE * together, deadline_s=86_400.0
    )

    def draw(groups: Iterable[list[Fields]]) -> Answers:
        idle: list[Service] = []
        loading = threading.Lock()

        def answer(group: list[Fields]) -> list[dict[str, Any]]:
            with loading:
                service = idle.pop() if idle else loaded(Service, Path(exported), kind, running)
            replies = service.answers(group)
            idle.append(service)
            return [checked(reply.status, reply.body) for reply in replies]

        with tempfile.TemporaryDirectory() as exported:
            export(directory, Path(exported))
            if backend == OPENVINO:
                print("compiling the network ...", file=sys.stderr)
                compile_run(directory, Path(exported))
            try:
                for several in mapped(answer, groups, workers):
                    yield from several
            finally:
                for service in idle:
                    service.close()

    return draw, together


def cores() -> int:
    """Return how many cores this rank may use: those of the machine are shared out among its ranks."""
    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, n // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
