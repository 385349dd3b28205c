"""Decide what evaluates the network of an archive, when it is built."""

import sys
from dataclasses import dataclass
from pathlib import Path

from genserve.backends import AUTO, INT8, OPENVINO, TORCHSCRIPT
from genserve.families import FAMILIES
from genserve.operate.environment import has, versions

COMPILER = "genserve.compiling.convert"  # the program


@dataclass(frozen=True)
class Evaluated:
    """What evaluates a network, as the archive's model-config.yaml says it."""

    backend: str
    precision: str
    made_by: tuple[str, ...] = ()  # versions of what compiles it; () if nothing does


def evaluated(directory: Path, family: str, backend: str, precision: str, python: Path) -> Evaluated:
    """Return what is to evaluate the network of a run.

    Args:
        family: of the run.
        backend: one of BACKENDS, or AUTO: that is openvino for what it compiles, where it is installed.
        precision: one of SERVED_IN; INT8 is for openvino.

    Raises:
        SystemExit: it was asked for what the family cannot have, or what is not installed.
    """
    kind, int8 = FAMILIES[family], precision == INT8
    wished = INT8 if int8 else OPENVINO
    if int8 or backend == OPENVINO:
        if not kind.compiled or (int8 and kind.slopes):
            able = [name for name, one in FAMILIES.items() if one.compiled and not (int8 and one.slopes)]
            sys.exit(f"{directory} is of the family {family}; {wished} is for {' and '.join(able)}")
        made_by = versions(python, "openvino", *(["nncf"] if int8 else []))
        return Evaluated(OPENVINO, precision, tuple(made_by))
    if backend == AUTO and kind.compiled and has(python, "openvino"):
        return Evaluated(OPENVINO, precision, tuple(versions(python, "openvino")))
    return Evaluated(TORCHSCRIPT, precision)
