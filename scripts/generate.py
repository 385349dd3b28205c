"""Draw many pictures into a folder, through a server or straight from a run: the same pictures either way.

    python scripts/generate.py --num-images 10000 --output-dir out/digits             from the local server
    python scripts/generate.py --server http://HOST:8080/predictions/NAME ...         from another one
    python scripts/generate.py --run weights/diffusion-mnist --num-images 10000 ...   without any server
    python scripts/generate.py --label 7 --seed 3 --sampler ddim --steps 50 ...       what a request may say
    python scripts/generate.py --rgb true ...       three channels, for tools that compare folders
    python scripts/generate.py --shards 1000 ...    WebDataset shards of 1,000 pictures each
    torchrun --nnodes 4 --nproc-per-node 2 ... -- scripts/generate.py --run runs/mine --seed 0 ...

The pictures are 00001.png, 00002.png and so on in one folder. Picture k of a seed never changes, so a run
that was stopped or killed goes on with the same command, and a larger --num-images adds to what is there.
settings.json says how they were drawn, and a folder that was drawn otherwise is refused, as is one that has
such files without it. A file that is cut short is drawn again.

A shard, shard-00000.tar and so on, holds of each picture its .png, its class as a number in .cls, and what is
known of it in .json. The last one may not be full, so a folder of shards keeps its --num-images.

A server is asked by several requests at a time (--in-flight), and asked again when its queue is full or it
starts anew. Without a server, every core draws pictures of its own, or the GPU draws many together. Under
torchrun the ranks share out the pictures, and on each machine the cores or the GPUs; they never wait for each
other, and write into one folder, or each machine into its own. They need a --seed, and torchrun a -- before
the program: it would take --run for a flag of its own.
"""

import base64
import io
import os
import secrets
import sys
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from PIL import Image
from tqdm import tqdm

from genserve.cli import flags, help_formatter, plain_errors
from genserve.drawing.client import answers, checked, mapped
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

Answers = Iterator[dict[str, Any]]
# the fields of requests that go together -> their JSON answers, in order
Draw = Callable[[Iterable[list[dict[str, Any]]]], Answers]
SHARE = 16  # pictures a request
ON_GPU = 2**19  # pixel values in one evaluation: a GPU has time for many
REQUESTS_PER_CORE = 4  # two full batches for each of a server's cores: one evaluated, one on its way
OPEN_MAX = 64  # requests that a server evaluates together; more would only wait in its queue


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """What to draw, how, and where to put it.

    Args:
        num_images: how many pictures the folder shall hold.
        output_dir: the folder; what is already there is not drawn again.
        shards: pictures in a WebDataset shard; single files where not given.
        server: the model's address.
        in_flight: requests, of 16 pictures, at the server at a time; where not given, four for each of its
            cores, at most 64.
        run: a run directory, such as weights/diffusion-mnist, to draw from without a server.
        seed: names the pictures; drawn where not given, kept where the folder has one.
        label: class by name, or by index where not all names are whole numbers; anything where not given.
        sampler: ddim, ddpm, heun, dpmpp_2m, consistency, or langevin of an energy; the model's best where not
            given.
        steps: of the sampler; the model's best where not given.
        eta: fresh noise of ddim and dpmpp_2m, 0 to 1; without a sampler the model's best, else 0.
        schedule: karras, linear, cosine, offset_cosine or tuned; the model's best where not given.
        guidance: weight of the class, of a diffusion model.
        scale: enlargement of every pixel.
        rgb: write three channels where the model has one, as tools that compare pictures want them.
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
        """What every request says, beside seed and indices."""
        names = ("label", "sampler", "steps", "eta", "schedule", "guidance", "scale")
        return {name: getattr(self, name) for name in names}

    @property
    def asked(self) -> dict[str, Any]:
        """What the files of the folder depend on, beside the seed and the model."""
        # with more pictures, a last shard that is not full would be another one
        sharded = {"shards": self.shards, "num_images": self.num_images} if self.shards else {}
        return self.fields | {"rgb": self.rgb} | sharded


def main(config: GenerateConfig) -> None:
    """Draw what is missing."""
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    folder = Path(config.output_dir)
    settings = {"seed": seed_of(config, folder, size), "asked": config.asked}
    refuse_changes(folder, settings)
    draw, together = from_run(located(config.run)) if config.run else (from_server(config), 1)
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
    there = len(mine) - len(missing)
    bar = tqdm(total=len(mine), initial=there, unit=" images", disable=rank > 0, smoothing=0.05)
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

    Always whole units, a shard or as many pictures as go together: rounding cannot depend on where a run was
    stopped.

    Args:
        unit: pictures that are drawn again where one of them is missing.
        together: requests.
        end: number of pictures in all, where the last unit may not be whole.
    """
    for start in sorted({k - k % unit for k in missing}):
        stop = min(start + unit, end or start + unit)
        shares = [range(first, min(first + SHARE, stop)) for first in range(start, stop, SHARE)]
        for k in range(0, len(shares), together):
            yield shares[k : k + together]


def model_of(config: GenerateConfig) -> dict[str, str]:
    """Return the name of the model that would draw and the digest of its weights, as answers name them."""
    if config.run:
        spec = spec_of(located(config.run))
        return {"model": spec.name, "weights": spec.weights}
    (model,) = answers(config.server, [{"task": "describe"}])
    return {"model": model["name"], "weights": model["weights"]}


def seed_of(config: GenerateConfig, folder: Path, ranks: int) -> int:
    """Return the seed that is given, or that of the folder, or a fresh one.

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
    """Return the picture with three channels where that is asked for."""
    if not rgb:
        return png
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


# ---- who draws ---------------------------------------------------------------------------------------------


def from_server(config: GenerateConfig) -> Draw:
    """Ask a server, by enough requests at a time that it is never idle."""

    def draw(groups: Iterable[list[dict[str, Any]]]) -> Answers:
        in_flight = config.in_flight
        if in_flight is None:
            (model,) = answers(config.server, [{"task": "describe"}])
            in_flight = min(OPEN_MAX, REQUESTS_PER_CORE * model["threads"])
        return answers(config.server, chain.from_iterable(groups), in_flight)

    return draw


def from_run(directory: Path) -> tuple[Draw, int]:
    """Answer as the server would, in this process: the same service over the same exported model.

    Returns:
        What draws, and how many requests it wants together. A service evaluates these and nothing else, in
        a thread and a core of its own, so that rounding is the same whoever else draws. On a GPU there are
        two services: while it evaluates for one, the other writes PNGs.
    """
    import torch

    from genserve.families import load
    from genserve.runs.directory import model_config
    from genserve.runs.export import export
    from genserve.serving.service import Running, Service, loaded

    model = model_config(directory)
    kind = load(model.kind.request)
    device, workers, together = torch.device("cpu"), cores(), 1
    if torch.cuda.is_available():
        gpu = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
        values = SHARE * model.shape[0] * model.shape[1] * model.shape[2]
        device, workers, together = torch.device("cuda", gpu), 2, max(1, ON_GPU // values)

    running = Running(device=device, precision="auto", budget=SHARE * together, deadline_s=86_400.0)

    def draw(groups: Iterable[list[dict[str, Any]]]) -> Answers:
        idle: list[Service] = []
        loading = threading.Lock()

        def answer(group: list[dict[str, Any]]) -> list[dict[str, Any]]:
            with loading:
                service = idle.pop() if idle else loaded(Path(exported), kind, running)
            replies = service.answers(group)
            idle.append(service)
            return [checked(reply.status, reply.body) for reply in replies]

        with tempfile.TemporaryDirectory() as exported:
            export(directory, Path(exported))
            for several in mapped(answer, groups, workers):
                yield from several

    return draw, together


def cores() -> int:
    """Return how many cores this rank may use: those of the machine are shared out among its ranks."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, there // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def command_line(argv: list[str]) -> GenerateConfig:
    """Return what the flags and a YAML file ask for; dashes and underscores are alike."""
    parser = ArgumentParser(description=__doc__, formatter_class=help_formatter())
    parser.add_argument("--config", action="config", help="YAML file with any of the keys below")
    parser.add_class_arguments(GenerateConfig, nested_key=None)
    parsed = parser.parse_args(flags(argv))
    parsed.pop("config")
    return GenerateConfig(**vars(parsed))


if __name__ == "__main__":
    with plain_errors():
        main(command_line(sys.argv[1:]))
