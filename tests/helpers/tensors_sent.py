"""Tensors of KServe's second protocol, as a client sends them in JSON."""

from typing import Any


def tensor(name: str, data: Any, datatype: str = "INT64", shape: Any = None) -> dict[str, Any]:
    """Return an input; if no shape is given, that of a list."""
    return {
        "name": name,
        "shape": [len(data)] if shape is None else shape,
        "datatype": datatype,
        "data": data,
    }
