"""What an archive knows of its compiled network: its files' digests, and the trained network's answers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from genserve.backends import INT8
from genserve.files import digest, parsing, read_json, write_json
from genserve.runs.tensors import read_weights, write_weights
from genserve.sampling.engine import Answer, Call
from genserve.sampling.samplers import Query

PLAIN, QUANTIZED = "compiled", "compiled-int8"  # names of files, with the endings .xml and .bin
SAMPLE = "compiled.safetensors"
# How far an answer may be from the trained network's in fp32: the root mean square error of an item, over
# that of its answer. In bf16 three times the error that the network itself makes in bf16 is enough as well.
ERROR_MAX = {"fp32": 1e-3, "bf16": 0.5, INT8: 0.5}
ROUNDED = 3.0
VARIATIONS, NOISE = 5, 0.05


def write_record(directory: Path, stem: str, weights: str, sizes: Sequence[int]) -> None:
    """Write what `check_files` reads: of which weights a network was compiled, and what its files hold.

    Args:
        sizes: batches that it may be compiled for, rising.
    """
    digests = {name: digest(directory / name) for name in (f"{stem}.xml", f"{stem}.bin", SAMPLE)}
    write_json(directory / f"{stem}.json", {"weights": weights, "files": digests, "sizes": list(sizes)})


def check_files(directory: Path, stem: str, weights: str) -> tuple[int, ...]:
    """Return the sizes of a compiled network; refuse files that are not those built from these weights.

    Raises:
        FileNotFoundError: one is missing.
        OSError: one cannot be read.
        ValueError: one has changed, or they were compiled from other weights.
    """
    record = directory / f"{stem}.json"
    if not record.is_file():
        raise FileNotFoundError(f"the archive has no {stem}.xml with its {record.name}")
    known = read_json(record)
    with parsing(record, "the record of a compiled network"):
        own, files, sizes = known["weights"], dict(known["files"]), tuple(map(int, known["sizes"]))
        if not sizes or min(sizes) < 1 or list(sizes) != sorted(set(sizes)):
            raise ValueError(f"its sizes are {sizes}")
    for name, expected in files.items():
        if not (directory / name).is_file():
            raise FileNotFoundError(f"the archive has no {name}")
        if digest(directory / name) != expected:
            raise ValueError(f"{name} is not the file that was built")
    if own != weights:
        raise ValueError(f"it was compiled from the weights {own}, and the archive has {weights}")
    return sizes


@dataclass(frozen=True)
class Comparison:
    """Queries, and the trained network's answers to them in fp32 and in bf16."""

    query: Query
    answers: tuple[Tensor, ...]
    rounded: tuple[Tensor, ...]

    @classmethod
    def of(cls, query: Query, evaluate: Call, rounded: Call) -> "Comparison":
        """Return what a network answers, and what it answers in bf16."""
        return cls(query, tensors_of(evaluate(*query)), tensors_of(rounded(*query)))

    def write(self, path: Path) -> None:
        """Write a file that `read` reads; raises as `files.atomic`."""
        fields = self.query._asdict() | dict(_numbered("answer", self.answers))
        write_weights(path, fields | dict(_numbered("rounded", self.rounded)))

    @classmethod
    def read(cls, path: Path) -> "Comparison":
        """Return what `write` wrote; raises as `read_weights`, and KeyError: it is another file."""
        tensors = read_weights(path)
        query = Query(*(tensors[name] for name in Query._fields))
        n = sum(name.startswith("answer") for name in tensors)
        answers, rounded = (tuple(tensors[f"{name}_{k}"] for k in range(n)) for name in ("answer", "rounded"))
        return cls(query, answers, rounded)

    def error(self, answer: Answer) -> float:
        """Return the largest error of an item: root mean square, over that of the trained answer.

        It is no number if any of the answer is none.
        """
        pairs = zip(tensors_of(answer), self.answers, strict=True)
        return float(torch.stack([(_size(a - b) / _size(b)).max() for a, b in pairs]).max())

    def variations(self) -> list[Query]:
        """Return the queries, and the same with a little noise: for comparing bits, which needs many."""
        rng = torch.Generator().manual_seed(0)
        x, *others = self.query
        noise = (NOISE * torch.randn(x.shape, generator=rng) for _ in range(VARIATIONS))
        return [self.query, *(Query(x + each, *others) for each in noise)]

    def check(self, answer: Answer, precision: str) -> None:
        """Refuse an answer to the queries that is too far from the trained network's.

        Raises:
            ValueError: it is.
        """
        error, allowed = self.error(answer), ERROR_MAX[precision]
        if precision == "bf16":
            allowed = min(allowed, max(ROUNDED * self.error(self.rounded), ERROR_MAX["fp32"]))
        if not error <= allowed:  # a sum that is no number is not allowed either
            raise ValueError(f"its answers in {precision} are off by {error:.2g}, more than {allowed:.2g}")


def _numbered(name: str, tensors: Sequence[Tensor]) -> Iterator[tuple[str, Tensor]]:
    return ((f"{name}_{k}", tensor) for k, tensor in enumerate(tensors))


def tensors_of(answer: Answer) -> tuple[Tensor, ...]:
    """Return the tensors of an answer."""
    return (answer,) if isinstance(answer, Tensor) else tuple(answer)


def _size(x: Tensor) -> Tensor:
    """Return the root mean square of each item, (B,)."""
    return x.flatten(1).square().mean(1).sqrt() if x.dim() > 1 else x.abs()
