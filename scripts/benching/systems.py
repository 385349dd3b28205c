"""The systems that scripts/bench compares, and which of them may stand in one ratio."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from genserve.backends import INT8, OPENVINO, TORCHSCRIPT


@dataclass(frozen=True, kw_only=True)
class System:
    """Says what runs, and in which precision.

    Args:
        name: on the command line and in the tables.
        kind: "archive", of genserve behind its server; "loop", the same model in a process without a server,
            which is the limit of an archive; "app", of uvicorn; "handler", a plain one of TorchServe.
        precision: that it computes in, and that its ratios belong to; "auto" is bf16 where the machine has
            it in hardware, else fp32. A peer (app or handler) has "", and runs in each of --precision.
        model: an archive's name, of hosting.RUNS.
        backend: what evaluates the network, of an archive or a loop.
    """

    name: str
    kind: str
    precision: str = ""
    model: str = "diffusion"
    backend: str = OPENVINO

    @property
    def build_flags(self) -> list[str]:
        """The words behind scripts/build_archives, of an archive whose precision is known."""
        return [self.model, "--precision", self.precision, "--backend", self.backend]

    @property
    def label(self) -> str:
        """Name and precision."""
        return f"{self.name} ({self.precision})"


SYSTEMS = {
    system.name: system
    for system in (
        System(name="bare", kind="loop", precision="auto"),
        System(name="genserve", kind="archive", precision="auto"),
        System(name="bare-torchscript", kind="loop", precision="auto", backend=TORCHSCRIPT),
        System(name="genserve-torchscript", kind="archive", precision="auto", backend=TORCHSCRIPT),
        System(name="bare-int8", kind="loop", precision=INT8),
        System(name="genserve-int8", kind="archive", precision=INT8),
        System(name="bare-fp32", kind="loop", precision="fp32"),
        System(name="genserve-fp32", kind="archive", precision="fp32"),
        System(name="fastapi", kind="app"),
        System(name="diffusers", kind="app"),
        System(name="torchserve", kind="handler"),
        System(name="bare-energy", kind="loop", precision="auto", model="energy"),
        System(name="energy", kind="archive", precision="auto", model="energy"),
        System(
            name="energy-torchscript", kind="archive", precision="auto", model="energy", backend=TORCHSCRIPT
        ),
        System(name="bare-energy-fp32", kind="loop", precision="fp32", model="energy"),
        System(name="energy-fp32", kind="archive", precision="fp32", model="energy"),
    )
}


def resolved(names: Iterable[str], peers: Sequence[str], machine: str) -> list[System]:
    """Return the systems of these names with no precision left open.

    Args:
        peers: the precisions that peers run in; each peer is there once for each.
        machine: the precision that "auto" stands for.
    """
    result = []
    for name in names:
        system = SYSTEMS[name]
        precisions = {"": peers, "auto": [machine]}.get(system.precision, [system.precision])
        result += [replace(system, precision=precision) for precision in precisions]
    return result


def opponents(ours: System, systems: Iterable[System]) -> list[System]:
    """Return the systems that an archive may be compared with: of the same model, in the same precision.

    They are the loop on the same backend, which is the archive's limit; the peers; and, of an archive on
    another backend, the one on TorchScript.
    """
    alike = [other for other in systems if (other.model, other.precision) == (ours.model, ours.precision)]

    def fair(other: System) -> bool:
        if other.kind == "archive":
            return other.backend == TORCHSCRIPT != ours.backend
        return other.kind != "loop" or other.backend == ours.backend

    return [other for other in alike if fair(other)]
