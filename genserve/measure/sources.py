"""Get images to measure: from a file or folder, drawn from a run, or requested from a server."""

import base64
import logging
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from genserve import image_files as pictures
from genserve.backends import TORCHSCRIPT
from genserve.data.listing import listed
from genserve.drawing.client import answers
from genserve.drawing.local import draw, draw_once, fair_classes, served_model
from genserve.families import FAMILIES
from genserve.labels import NO_CLASS
from genserve.models.config import OnceConfig
from genserve.progress import Progress
from genserve.runs.contract import Spec
from genserve.runs.defaults import spec_of
from genserve.runs.directory import config_of, load_model, model_config
from genserve.sampling.defaults import Defaults, fields_of
from genserve.sampling.latent import CHANGES, change_in
from genserve.sampling.settings import Setting

log = logging.getLogger(__name__)

SHARE = 16  # images per request


class Images(NamedTuple):
    """Images that are measured together."""

    name: str  # of the setting, or of the file
    x: Tensor  # (N, C, H, W) uint8
    y: Tensor | None  # (N,), the class that each should show; None without classes
    known: dict[str, Any]  # of the drawing: seed, nfe, images_per_s


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The images to draw: n of every setting and every seed."""

    settings: tuple[str, ...]  # SAMPLER:STEPS[:KEY=VALUE]...; () for the model's defaults
    n: int
    seeds: range
    class_counts: Tensor  # (n_classes,), whose shares the drawn classes have
    unconditional: bool  # draw without classes

    def classes(self, model_classes: Sequence[str]) -> Tensor | None:
        """Return the class of each image, (n,), or None to draw without classes."""
        if self.unconditional or not model_classes:
            return None
        return fair_classes(self.n, self.class_counts)


# ---- a file or folder --------------------------------------------------------------------------------------


def shape_of(path: Path) -> tuple[int | None, int, int]:
    """Return (C, H, W) of the images of a file or folder; C is None for a folder, which may have both.

    Raises:
        FileNotFoundError, ValueError: as `read`.
    """
    if path.is_dir():
        h, w, _ = pictures.read(listed(path).files[0]).shape
        return None, h, w
    pixels = _array(path)
    return pixels.shape[3] if pixels.ndim == 4 else 1, pixels.shape[1], pixels.shape[2]


def read(path: Path, shape: Sequence[int], classes: Sequence[str]) -> tuple[Tensor, Tensor | None]:
    """Return images (N, C, H, W) uint8 of a file or folder, and their classes if its folders name them.

    Args:
        shape: (C, H, W) that every image must have.
        classes: those of the classifier.

    Raises:
        FileNotFoundError: the path does not exist, or the folder has no picture.
        ValueError: the images do not have this shape.
    """
    c, h, w = shape
    if path.is_dir():
        listing = listed(path)
        if listing.passed_over:
            log.warning("%s: passed over %s", path, listing.passed_over)
        x = torch.stack([_picture(file, shape) for file in listing.files])
        if unknown := [name for name in listing.classes if name not in classes]:
            log.warning("%s: no class of the classifier: %s; taken without classes", path, ", ".join(unknown))
        if unknown or not listing.classes:
            return x, None
        return x, torch.tensor([classes.index(name) for name in listing.classes])[listing.labels]
    pixels = _array(path)
    if pixels.shape[1:] != ((h, w) if pixels.ndim == 3 and c == 1 else (h, w, c)):
        raise ValueError(f"{path} must hold uint8 (N, {h}, {w}, {c}), it holds {pixels.dtype} {pixels.shape}")
    return torch.from_numpy(pixels).reshape(-1, h, w, c).permute(0, 3, 1, 2), None


def _picture(source: Path | bytes, shape: Sequence[int]) -> Tensor:
    """Return a picture as (C, H, W) uint8."""
    c, h, w = shape
    return torch.from_numpy(pictures.read(source, c, (w, h))).permute(2, 0, 1)


def _array(path: Path) -> np.ndarray[Any, Any]:
    """Return the images of a .npy file, (N, H, W) or (N, H, W, C) uint8."""
    if not path.is_file():
        raise FileNotFoundError(f"--images: there is no file or folder {path}")
    try:
        with path.open("rb") as file:
            pixels = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no .npy file of images") from error
    if not isinstance(pixels, np.ndarray):
        raise ValueError(f"{path} holds several arrays, must be a .npy file of one")
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4):
        raise ValueError(f"{path} must hold uint8 (N, H, W, C), it holds {pixels.dtype} {pixels.shape}")
    return pixels


# ---- a run -------------------------------------------------------------------------------------------------


def drawn_by(directory: Path) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """Return shape (C, H, W) and classes, () for none, of the images that a run draws.

    Raises:
        FileNotFoundError, OSError, ValueError: as `model_config`.
    """
    config = config_of(directory)
    model = config if isinstance(config, OnceConfig) else model_config(directory)
    return model.shape, model.classes


def drawn(
    directory: Path,
    plan: Plan,
    device: torch.device,
    precision: str,
    batch_size: int,
    progress: Progress,
    backend: str = TORCHSCRIPT,
) -> Iterator[Images]:
    """Yield the images that a run draws, setting by setting, seed by seed.

    Args:
        precision, backend: of the network, as `served_model`.
        batch_size: images that are drawn together.

    Raises:
        FileNotFoundError, ModuleNotFoundError, ValueError: as `served_model`, or a text is not a setting of
            this model; or a model that draws in one evaluation is asked for no class, in another precision
            than fp32 or on another backend than TorchScript.
    """
    config = config_of(directory)
    if isinstance(config, OnceConfig):
        if (precision, backend) != ("fp32", TORCHSCRIPT):
            wrong = f"precision must be fp32 and backend {TORCHSCRIPT}"
            raise ValueError(f"{wrong}: {directory} draws in one evaluation, in that alone")
        yield from _drawn_once(directory, config, plan, device, batch_size, progress)
        return
    spec = spec_of(directory)
    texts = plan.settings or (Setting.of(spec.defaults).text(spec.defaults),)
    # parse all before the first one is drawn, which takes minutes
    settings = [Setting.parse(text, spec.defaults) for text in texts]
    _, drawer = served_model(directory, device, precision, backend)
    classes = plan.classes(spec.classes)
    y = torch.full((plan.n,), spec.no_class) if classes is None else classes
    y = y.to(device)
    for text, setting in zip(texts, settings, strict=True):
        for seed in plan.seeds:
            clock = time.perf_counter()
            x = draw(drawer, spec, setting, y, seed, batch_size, progress(text))
            yield Images(text, x, classes, {"seed": seed, "nfe": setting.nfe} | _speed(plan.n, clock))


def _drawn_once(
    directory: Path,
    config: OnceConfig,
    plan: Plan,
    device: torch.device,
    batch_size: int,
    progress: Progress,
) -> Iterator[Images]:
    """Yield what `drawn` does, of a model that draws in one evaluation."""
    classes = plan.classes(config.classes)
    if classes is None and config.classes:
        raise ValueError(f"unconditional: {directory} draws only with a class")
    name = FAMILIES[config.family].once
    change = CHANGES[name]
    texts = plan.settings or (f"{name}={change.none:g}",)
    values = {text: change_in(text, name) for text in texts}
    model = load_model(directory).to(device)
    y = (torch.zeros(plan.n, dtype=torch.long) if classes is None else classes).to(device)
    for text, value in values.items():
        for seed in plan.seeds:
            clock = time.perf_counter()
            x = draw_once(
                model, config.z_dim, y, partial(change, number=value), seed, batch_size, progress(text)
            )
            yield Images(text, x, classes, {"seed": seed, "nfe": 1} | _speed(plan.n, clock))


def _speed(n: int, start: float) -> dict[str, float]:
    return {"images_per_s": round(n / (time.perf_counter() - start), 1)}


# ---- a server ----------------------------------------------------------------------------------------------


def described(address: str) -> Spec:
    """Return the contract of a server's model.

    Raises:
        ValueError: the address is not that of a model of genserve.
    """
    (description,) = answers(address, [{"task": "describe"}])
    known = {field.name for field in fields(Spec)}
    try:
        return Spec.of({key: value for key, value in description.items() if key in known})
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(f"{address} does not describe a model of genserve ({error})") from error


def request_fields(text: str, defaults: Defaults) -> dict[str, Any]:
    """Return the fields of a request for a setting.

    Raises:
        ValueError: the text is not SAMPLER:STEPS[:KEY=VALUE]..., or has a key that requests do not have.
    """
    keys = {key: kind for key, kind in defaults.keys.items() if key not in ("sigma_min", "sigma_max")}
    return fields_of(text, keys)


def asked(address: str, plan: Plan, progress: Progress) -> Iterator[Images]:
    """Yield the images that a server draws, setting by setting, seed by seed; `drawn` yields the same.

    Raises:
        ValueError: as `answers`; or the model changed in the meantime, or it has no label for "no class".
    """
    spec = described(address)
    if plan.unconditional and NO_CLASS in spec.classes:
        raise ValueError(f"{address} has a class called {NO_CLASS}, so it cannot be asked for no class")
    settings = {text: request_fields(text, spec.defaults) for text in plan.settings}
    settings = settings or {Setting.of(spec.defaults).text(spec.defaults): {}}  # the server's own defaults
    classes = plan.classes(spec.classes)
    for setting in settings.values():  # try all, for refusals, before the first one takes its minutes
        list(answers(address, [{"format": "json", "num_samples": 1, "seed": 0} | setting]))
    for text, setting in settings.items():
        for seed in plan.seeds:
            clock = time.perf_counter()
            starts = progress(text)(range(0, plan.n, SHARE))
            shares = (_share(plan.n, start, seed, classes, spec.classes) for start in starts)
            replies = list(answers(address, (setting | share for share in shares)))
            if any(reply["settings"] != replies[0]["settings"] for reply in replies):
                raise ValueError(f"{address} changed its model while it drew {text}")
            pngs = [base64.b64decode(image["png"]) for reply in replies for image in reply["images"]]
            x = torch.stack([_picture(png, spec.shape) for png in pngs])
            known = {"seed": seed, "nfe": replies[0]["nfe"]} | _speed(plan.n, clock)
            yield Images(text, x, classes, known)


def _share(
    n: int, start: int, seed: int, classes: Tensor | None, model_classes: Sequence[str]
) -> dict[str, Any]:
    """Return the fields of the request for images `start` to `start` + 15 of a seed."""
    stop = min(n, start + SHARE)
    request = {"format": "json", "num_samples": stop - start, "seed": seed, "first_index": start}
    if classes is not None:  # by name, which means the same class to every server
        return request | {"label": [model_classes[k] for k in classes[start:stop].tolist()]}
    return request | ({"label": NO_CLASS} if model_classes else {})
