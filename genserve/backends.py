"""The names of what evaluates a network, and of the precisions that a server knows."""

from importlib.util import find_spec

TORCHSCRIPT, OPENVINO = BACKENDS = ("torchscript", "openvino")
INT8 = "int8"  # the wide convolutions of a compiled network; the rest of it is as by default
AUTO = "auto"  # what suits the machine and the model
SERVED_IN = (AUTO, "fp32", "bf16", INT8)  # precisions


def usual(compiled: bool) -> str:
    """Return the backend of an archive that is built here without a wish.

    Args:
        compiled: OpenVINO can evaluate networks of this family, as `families.Family` has it.
    """
    return OPENVINO if compiled and find_spec("openvino") else TORCHSCRIPT
