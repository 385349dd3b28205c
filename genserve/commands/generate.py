"""Draw many pictures into a folder, through a server or straight from a run: the same pictures either way.

    genserve generate --num-images 10000 --output-dir out/digits             from the local server
    genserve generate --server http://HOST:8080/predictions/NAME ...         from another one
    genserve generate --run weights/diffusion-mnist --num-images 10000 ...   without any server
    genserve generate --label 7 --seed 3 --sampler ddim --steps 50 ...       fields of a request
    genserve generate --rgb true ...       three channels, for tools that compare folders
    genserve generate --shards 1000 ...    WebDataset shards of 1,000 pictures each
    torchrun --nnodes 4 --nproc-per-node 2 ... -m -- genserve generate --run runs/mine --seed 0 ...

The pictures are 00001.png, 00002.png and so on in one folder. Picture k of a seed never changes, so a run
that was stopped or killed goes on with the same command, and a larger --num-images adds to what is there.
settings.json says how they were drawn, and a folder that was drawn otherwise is refused, as is one that has
such files without it. A file that is cut short is drawn again.

A shard, shard-00000.tar and so on, holds of each picture its .png, its class as a number in .cls, and what is
known of it in .json. The last one may not be full, so a folder of shards keeps its --num-images.

A server is asked by several requests at a time (--in-flight), and asked again when its queue is full or it
restarts. One behind a door wants a token, in the environment's GENSERVE_TOKEN, and maybe its certificate, in
SSL_CERT_FILE. Without a server, every core draws pictures of its own, or the GPU draws many together. Under
torchrun the ranks share out the pictures, and on each machine the cores or the GPUs; they never wait for each
other, and write into one folder, or each machine into its own. They need a --seed, and torchrun a -- before
the program: it would take --run for a flag of its own.
"""

import base64
import io
import os
import secrets
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from genserve.cli import config_of, plain_errors
from genserve.commands.answerers import SHARE, from_run, from_server
from genserve.drawing.client import answers
from genserve.drawing.folder import (
    file_of,
    keep_settings,
    refuse_changes,
    remove_torn,
    settings_of,
    shard,
    torn,
)
from genserve.files import write_atomic
from genserve.places import located
from genserve.runs.defaults import spec_of


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """What to draw, how, and where to put it.

    Args:
        num_images: number of pictures in the folder when it is done.
        output_dir: the folder; what is already there is not drawn again.
        shards: pictures in a WebDataset shard; if not given, single files.
        server: the model's address.
        in_flight: requests, of 16 pictures, at the server at a time; if not given, four for each of its
            cores, at most 64.
        run: a run directory, such as weights/diffusion-mnist, to draw from without a server.
        seed: names the pictures; if not given, that of the folder, or else a random one.
        label: class by name, or by index if not all names are whole numbers; if not given, any.
        sampler: by name, as in a request; if not given, the model's best.
        steps: of the sampler; if not given, the model's best.
        eta: fresh noise of samplers that take it, 0 to 1; if not given, 0 with a sampler, else the model's
            best.
        schedule: of the noise levels, by name, as in a request; if not given, the model's best.
        guidance: weight of the class, of a diffusion model.
        scale: enlargement of every pixel.
        rgb: write three channels even if the model has one, for tools that compare pictures.
    """

    num_images: int = 16
    output_dir: str = "out/generated"
    shards: int | None = None
    server: str = "http://127.0.0.1:8080/predictions/diffusion"
    in_flight: int | None = None
    run: str | None = None
    seed: int | None = None
    label: str | None = None
    sampler: str | None = None
    steps: int | None = None
    eta: float | None = None
    schedule: str | None = None
    guidance: float | None = None
    scale: int = 1
    rgb: bool = False

    def __post_init__(self) -> None:
        for name in ("num_images", "shards", "in_flight"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of every request, beside seed and indices."""
        names = ("label", "sampler", "steps", "eta", "schedule", "guidance", "scale")
        return {name: getattr(self, name) for name in names}

    @property
    def asked(self) -> dict[str, Any]:
        """All that the files of the folder depend on, beside the seed and the model."""
        # with more pictures, a last shard that is not full would be another one
        sharded = {"shards": self.shards, "num_images": self.num_images} if self.shards else {}
        return self.fields | {"rgb": self.rgb} | sharded


def main(config: GenerateConfig) -> None:
    """Draw what is missing."""
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    folder = Path(config.output_dir)
    settings = {"seed": seed_of(config, folder, size), "asked": config.asked}
    refuse_changes(folder, settings)
    if config.run:
        draw, together = from_run(located(config.run))
    else:
        draw, together = from_server(config.server, config.in_flight), 1
    unit = config.shards or SHARE * together
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    mine = [k for k in range(config.num_images) if k // unit % size == rank]
    drawn = names & {file_of(k, config.shards) for k in mine}
    drawn -= torn(folder, drawn)
    missing = {k for k in mine if file_of(k, config.shards) not in drawn}
    pictures = Counter(file_of(k, config.shards) for k in missing)  # of each file
    remove_torn(folder, names, pictures)

    fields = {name: value for name, value in config.fields.items() if value is not None}
    fields |= {"seed": settings["seed"], "format": "json"}
    groups = (
        [fields | {"first_index": share.start, "num_samples": len(share)} for share in shares]
        for shares in work(missing, unit, together, config.num_images if config.shards else None)
    )
    if not missing and (before := settings_of(folder)):  # no answer will say whose pictures they are
        refuse_changes(folder, settings | {"drawn": before["drawn"] | model_of(config)})
    held: dict[str, list[dict[str, Any]]] = defaultdict(list)
    done = len(mine) - len(missing)
    bar = tqdm(total=len(mine), initial=done, unit=" images", disable=rank > 0, smoothing=0.05)
    for answer in draw(groups) if missing else ():
        keep_settings(folder, settings | {"drawn": answer["settings"]}, rank)
        for entry in answer["images"]:
            if entry["index"] not in missing:
                continue
            name = file_of(entry["index"], config.shards)
            held[name].append(entry)
            if len(held[name]) == pictures[name]:
                write_atomic(folder / name, contents(held.pop(name), config))
            bar.update()
    bar.close()
    if rank == 0:
        others = f" of {config.num_images} on {size} ranks" if size > 1 else ""
        print(f"{len(mine)} images{others}, seed {settings['seed']}, in {folder}")


def work(missing: Iterable[int], unit: int, together: int, end: int | None) -> Iterator[list[range]]:
    """Yield the pictures of several requests that are evaluated together.

    Units are always complete, a shard or as many pictures as go together: rounding cannot depend on the place
    where a run was stopped.

    Args:
        unit: pictures that are drawn again if one of them is missing.
        together: requests.
        end: number of pictures in all, if the last unit may not be full.
    """
    for start in sorted({k - k % unit for k in missing}):
        stop = min(start + unit, end or start + unit)
        shares = [range(first, min(first + SHARE, stop)) for first in range(start, stop, SHARE)]
        for k in range(0, len(shares), together):
            yield shares[k : k + together]


def model_of(config: GenerateConfig) -> dict[str, str]:
    """Return name and weights of the model that would draw, as answers name them."""
    if config.run:
        spec = spec_of(located(config.run))
        return {"model": spec.name, "weights": spec.weights}
    (model,) = answers(config.server, [{"task": "describe"}])
    return {"model": model["name"], "weights": model["weights"]}


def seed_of(config: GenerateConfig, folder: Path, ranks: int) -> int:
    """Return the given seed, or that of the folder, or a random one.

    Raises:
        ValueError: several ranks would each draw their own.
    """
    if config.seed is not None:
        return config.seed
    if before := settings_of(folder):
        seed: int = before["seed"]
        return seed
    if ranks > 1:
        raise ValueError(f"seed: {ranks} ranks need the same one (allowed: --seed 0 to {2**63 - 1})")
    return secrets.randbelow(2**53)


def contents(entries: list[dict[str, Any]], config: GenerateConfig) -> bytes:
    """Return the file that holds these pictures: a shard, or one picture."""
    pngs = [converted(base64.b64decode(entry["png"]), config.rgb) for entry in entries]
    return shard(entries, pngs) if config.shards else pngs[0]


def converted(png: bytes, rgb: bool) -> bytes:
    """Return the picture, with three channels if rgb."""
    if not rgb:
        return png
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def command_line(argv: list[str]) -> GenerateConfig:
    """Return what the flags and a YAML file ask for; dashes and underscores are alike."""
    return config_of(GenerateConfig, __doc__, argv)


def run(argv: list[str]) -> None:
    """Do what the flags ask for; a mistake ends the program in one line."""
    with plain_errors():
        main(command_line(argv))
