"""genserve: small generative models, trained here and served from TorchServe.

A model (a denoiser or an energy), a schedule (falling noise levels) and a sampler (a generator that yields
where it wants to look): start with `genserve.sampling.samplers`, most of the mathematics in one file.

    from genserve import draw, load_model, model_config

The names below are read from their modules when they are first used, so that `import genserve` itself needs
nothing but Python. `__init__.pyi` has them for type checkers.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_MODULES = {  # name -> the module that has it
    "Defaults": "genserve.sampling.defaults",
    "Query": "genserve.sampling.samplers",
    "Sampler": "genserve.sampling.samplers",
    "Setting": "genserve.sampling.settings",
    "Streams": "genserve.sampling.noise",
    "ddim": "genserve.sampling.samplers",
    "dpmpp_2m": "genserve.sampling.samplers",
    "draw": "genserve.drawing.local",
    "grid": "genserve.images",
    "heun": "genserve.sampling.samplers",
    "karras": "genserve.sampling.schedules",
    "load_denoiser": "genserve.runs.directory",
    "load_model": "genserve.runs.directory",
    "located": "genserve.places",
    "model_config": "genserve.runs.directory",
    "png": "genserve.images",
    "sample": "genserve.sampling.samplers",
    "served_model": "genserve.drawing.local",
    "to_pixels": "genserve.images",
}

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    """Return one of the names above, from its module (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module 'genserve' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
