"""Run the compiled network of an archive, by OpenVINO on a CPU.

A network is compiled for a few batch sizes, since for any it would be slower. A batch is evaluated in parts
of these sizes, the last one filled up. The answer to an image is the same to the bit in each of them: a size
is used only after this was tried out, on this machine. The largest one comes first, and a server waits for no
more.
"""

import importlib
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from queue import LifoQueue
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genserve.backends import INT8
from genserve.runs.comparison import PLAIN, QUANTIZED, SAMPLE, Comparison, check_files, tensors_of
from genserve.runs.contract import Contract
from genserve.sampling.engine import Answer
from genserve.sampling.langevin import Slope
from genserve.sampling.samplers import Query

log = logging.getLogger(__name__)

DTYPES = {"f32": np.float32, "i64": np.int64}  # of OpenVINO
HINTS = {"fp32": "f32", "bf16": "bf16"}
# By whether it is an energy. With two lanes a size takes 56 MB for a denoiser, and 150 MB for an energy,
# which has the graph of the gradient, too. 32 at once are 4 % faster than twice 16.
# 32 clients leave 11 to 16 for a lane: with 12 in the place of 8 they get 4 to 9 % more.
SIZES = {False: (1, 2, 4, 12, 16), True: (1, 4, 16)}
# An evaluation costs as much as its items and this many more, measured for 1 to 32 items of diffusion-mnist.
CALL_ITEMS = 1.5


def openvino() -> Any:
    """Return the module openvino, without what tells its maker of every use.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if it were not installed
    return importlib.import_module("openvino")


def columns(query: Query) -> dict[str, Tensor]:
    """Return what a compiled network may take, by name; c_noise (B, 1) is ln(sigma) / 4."""
    return query._asdict() | {"c_noise": (query.sigma.log() / 4).unsqueeze(1)}


class Compiled:
    """A compiled network: called as (x, sigma, y), from several threads at a time.

    Args:
        directory: of an unpacked archive.
        contract: of its model.
        precision: "fp32", "bf16" or "int8"; what is not int8 is computed in `rest`.
        rest: "fp32" or "bf16".
        budget: most items in one evaluation, once `complete` has ended; the smallest size stays in any case.
        lanes: evaluations side by side, at most.

    Raises:
        ModuleNotFoundError: OpenVINO is not installed.
        FileNotFoundError, OSError, ValueError: as `check_files`; or the answers are wrong on this machine.
        LookupError, TypeError, RuntimeError: OpenVINO cannot compile it here.
    """

    def __init__(
        self, directory: Path, contract: Contract, precision: str, rest: str, budget: int, lanes: int
    ) -> None:
        stem = QUANTIZED if precision == INT8 else PLAIN
        sizes = check_files(directory, stem, contract.weights)
        self._slopes = contract.kind.slopes
        self._sample = Comparison.read(directory / SAMPLE)
        self._ov = openvino()
        self._core = self._ov.Core()
        self._settings = {
            "INFERENCE_PRECISION_HINT": HINTS[rest],
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": 1,
            "ENABLE_CPU_PINNING": False,
        }
        self._network = self._core.read_model(directory / f"{stem}.xml")  # its copies share the weights
        self.names = [port.any_name for port in self._network.inputs]
        *self._smaller, largest = sizes
        self.sizes = tuple(size for size in sizes if size <= budget) or sizes[:1]
        # By size; a lane takes what it finds. With streams in common, each part would be handed to another
        # thread and back.
        self._lanes: list[dict[int, _Request]] = [{} for _ in range(lanes)]
        self._free: LifoQueue[dict[int, _Request]] = LifoQueue()
        for requests in self._lanes:
            self._free.put(requests)
        with ThreadPoolExecutor(lanes) as pool:  # OpenVINO compiles without Python's lock
            self._compile(largest, pool.map)
        self.ready: tuple[int, ...] = (largest,)  # sizes that batches are evaluated in
        self._sample.check(self.answer(self._sample.query, [largest]), precision)

    def complete(self) -> None:
        """Compile the smaller sizes, too; those in which an answer has other bits are given up.

        Queries may come meanwhile, and get the same bits: a small batch only takes longer. So one core
        compiles, and the others are theirs. What cannot be compiled is left out, with a line in the log.
        """
        largest = self.ready[-1]
        queries = self._sample.variations()
        expected = [self.answer(query, [largest]) for query in queries]
        for size in reversed(self._smaller):
            if not threading.main_thread().is_alive():  # the program ends
                return
            try:
                self._compile(size, map)
                plan = [size] * -(-len(queries[0].x) // size)
                same = all(
                    all(map(torch.equal, tensors_of(self.answer(query, plan)), tensors_of(answer)))
                    for query, answer in zip(queries, expected, strict=True)
                )
            except RuntimeError as error:
                log.warning("batches of %d are filled up: %s", size, _why(error))
                continue
            if same:
                self.ready = tuple(sorted((*self.ready, size)))
            else:
                for requests in self._lanes:
                    del requests[size]  # the largest one's answers do without
                log.info("batches of %d have other bits on this machine: they are filled up", size)
        if within := tuple(size for size in self.ready if size in self.sizes):
            self.ready = within

    def _compile(self, size: int, each: Callable[..., Iterable["_Request"]]) -> None:
        """Compile the network for a size, for each lane; `each` is a map."""

        def compiled(_: object) -> "_Request":
            model = self._network.clone()
            model.reshape({port.any_name: [size, *port.partial_shape[1:]] for port in model.inputs})
            return _Request(self._ov, self._core.compile_model(model, "CPU", self._settings))

        for requests, request in zip(self._lanes, each(compiled, self._lanes), strict=True):
            requests[size] = request

    def __call__(self, *tensors: Tensor) -> Answer:
        """Return the answer to a query: x_0, or a Slope of an energy."""
        return self.answer(tensors, parts(len(tensors[0]), self.ready))

    def answer(self, tensors: Sequence[Tensor], plan: Sequence[int]) -> Answer:
        """Return the answer to a query, evaluated in parts of these sizes, the last one filled up."""
        given = columns(Query(*tensors))
        inputs = [given[name].numpy() for name in self.names]
        answers: list[np.ndarray] = []
        requests, first, n = self._free.get(), 0, len(tensors[0])
        try:
            for size in plan:
                rows = requests[size].rows([column[first : first + size] for column in inputs])
                answers = answers or [np.empty((n, *column.shape[1:]), column.dtype) for column in rows]
                for answer, column in zip(answers, rows, strict=True):
                    answer[first : first + size] = column
                first += size
        finally:
            self._free.put(requests)
        columns_of_answer = [torch.from_numpy(answer) for answer in answers]
        return Slope(*columns_of_answer) if self._slopes else columns_of_answer[0]


class _Request:
    """A network compiled for one batch size, with memory of its own for queries and answers."""

    def __init__(self, ov: Any, compiled: Any) -> None:
        self._request = compiled.create_infer_request()
        # ones: a sigma of 0 is none
        self._inputs = [
            np.ones(tuple(port.shape), DTYPES[port.element_type.to_string()]) for port in compiled.inputs
        ]
        self._outputs = [np.empty(tuple(port.shape), np.float32) for port in compiled.outputs]
        for k, array in enumerate(self._inputs):
            self._request.set_input_tensor(k, ov.Tensor(array, shared_memory=True))
        for k, array in enumerate(self._outputs):
            self._request.set_output_tensor(k, ov.Tensor(array, shared_memory=True))

    def rows(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the answers to n items, which hold until the next call; behind them are items of before."""
        for own, column in zip(self._inputs, inputs, strict=True):
            own[: len(column)] = column
        self._request.infer()
        return [array[: len(inputs[0])] for array in self._outputs]


@cache
def parts(n: int, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the sizes, falling, in which n items are evaluated soonest; together they are n or more.

    Raises:
        ValueError: n is below 1.
    """
    if n < 1:
        raise ValueError(f"there are no {n} items to evaluate")
    best: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    for items in range(1, n + 1):
        ways = ((size, best[max(0, items - size)]) for size in sizes)
        best.append(min((cost + size + CALL_ITEMS, (size, *plan)) for size, (cost, plan) in ways))
    return tuple(sorted(best[n][1], reverse=True))


def _why(error: Exception) -> str:
    """Return the last line of what an exception says."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


def load_compiled(
    directory: Path, contract: Contract, precision: str, rest: str, budget: int, lanes: int
) -> Compiled | None:
    """Return the compiled network of an archive, not yet complete; arguments as of `Compiled`.

    If it cannot run here, return None, with a line in the log.
    """
    try:
        return Compiled(directory, contract, precision, rest, budget, lanes)
    except (ImportError, OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
        log.warning("OpenVINO cannot be used, TorchScript is: %s", _why(error))
        return None
