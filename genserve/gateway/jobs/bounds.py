"""How large a job may be: a machine that serves, too, trains it, and whoever asks for it has no other cost.

The programs themselves take any size, for people at a command line. Every model that is shipped is far below.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from genserve.serving.fields import BadRequest

EPOCHS_MAX, BATCHES_MAX = 1000, 100_000
BOUNDS = {  # name of a setting, in whatever group -> least and largest value, of each item if it is a list
    "epochs": (1, EPOCHS_MAX),
    "max_batches_per_epoch": (1, BATCHES_MAX),
    "batch_size": (1, 4096),
    "prior_batch": (1, 4096),
    "stages": (1, 100),
    # networks
    "channels": (1, 1024),
    "patch": (1, 32),
    "blocks": (1, 8),
    "heads": (1, 64),
    "attention": (1, 1024),
    "z_dim": (1, 1024),
    "n_features": (1, 4096),
    "hidden": (1, 4096),
    "coupling_hidden": (1, 4096),
    "couplings": (1, 64),
    "group": (1, 4096),
    "width": (1, 4096),
    "layers": (1, 8),
    "dim": (1, 1024),
    # data
    "size": (1, 256),
    "window": (1, 1024),
    "n_tokens": (1, 65_536),
    "n_words": (1, 200_000),
    # chains of an energy
    "steps": (1, 1000),
    "buffer": (0, 65_536),
    "final_steps": (1, 10_000),
}
ITEMS_MAX = 8  # of a list of sizes


def check_bounds(settings: Mapping[str, Any]) -> None:
    """Check the sizes among all settings of a job.

    Raises:
        BadRequest: one is out of its bounds.
    """
    for key, name, value in _sizes(settings):
        least, most = BOUNDS[name]
        if isinstance(value, list | tuple):
            if len(value) > ITEMS_MAX or not all(least <= item <= most for item in value):
                allowed = f"at most {ITEMS_MAX} numbers of {least} to {most}"
                raise BadRequest(f"overrides.{key}", "a job may not be of this size", allowed)
        elif not least <= value <= most:
            raise BadRequest(f"overrides.{key}", "a job may not be of this size", f"{least} to {most}")


def check_served(program: str, settings: Mapping[str, Any]) -> None:
    """Check that what a program trains with these settings can be served.

    Raises:
        BadRequest: it cannot.
    """
    if program == "classifier" and settings["net"]["blocks"] != "airbench":
        allowed = "airbench, as in labels-mnist; or no serve_as"
        raise BadRequest("overrides.net.blocks", "a classifier of such blocks only measures", allowed)


def _sizes(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield dotted key, name and value of every size that is given."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _sizes(value, f"{prefix}{name}.")
        elif name in BOUNDS and isinstance(value, int | list | tuple):  # `blocks` may also be a word
            yield f"{prefix}{name}", name, value
