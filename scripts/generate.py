"""Draw pictures into a folder, through a server or straight from a run directory: the same files either way.

    python scripts/generate.py --num-images 100 --output-dir out/digits              from the local server
    python scripts/generate.py --run weights/diffusion-mnist --num-images 100 ...    without any server
    python scripts/generate.py --label 7 --seed 3 --sampler ddim --steps 50 ...

The pictures are 00001.png, 00002.png and so on. Picture k of a seed never changes, so a run that was stopped
goes on, and a larger --num-images adds to what is there. settings.json says how they were drawn, and
a folder that was drawn otherwise is refused.
"""

import base64
import io
import json
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from genserve.run import write_atomic, write_json
from genserve.train import configure

Draw = Callable[[dict[str, Any]], dict[str, Any]]  # the fields of a request -> its JSON answer
SHARE = 16  # images a request


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """What to draw, how, and where to put it.

    Args:
        num_images: how many pictures the folder shall hold.
        output_dir: the folder; what is already there is not drawn again.
        server: the model's address.
        run: a run directory, such as weights/diffusion-mnist, to draw from without a server.
        seed: names the pictures; drawn where not given, kept where the folder has one.
        label: class by number or name; anything where not given.
        sampler: ddim, ddpm, heun, dpmpp_2m, or langevin of an energy; the model's best where not given.
        steps: of the sampler; the model's best where not given.
        eta: fresh noise of ddim, 0 to 1; the model's best where no sampler is given either, else 0.
        schedule: karras, linear, cosine or offset_cosine; the model's best where not given.
        guidance: weight of the class, of a diffusion model.
        scale: enlargement of every pixel.
        rgb: write three channels where the model has one, as tools that compare pictures want them.
    """

    num_images: int = 16
    output_dir: str = "out/generated"
    server: str = "http://127.0.0.1:8080/predictions/diffusion"
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
        if self.num_images < 1:
            raise ValueError(f"num_images must be at least 1, got {self.num_images}")


def main(config: GenerateConfig) -> None:
    """Draw what is missing."""
    folder = Path(config.output_dir)
    asked = {
        k: v
        for k, v in asdict(config).items()
        if k not in ("num_images", "output_dir", "server", "run", "seed")
    }
    settings_file = folder / "settings.json"
    before = json.loads(settings_file.read_text()) if settings_file.is_file() else None
    seed = config.seed
    if seed is None:
        seed = before["seed"] if before else secrets.randbelow(2**53)
    differs = f"{folder} was drawn otherwise: give another --output-dir"
    if before and (before["seed"], before["asked"]) != (seed, asked):
        was = {"seed": before["seed"], **before["asked"]}
        changed = [
            f"{k} was {was.get(k)}, is {v}" for k, v in {"seed": seed, **asked}.items() if was.get(k) != v
        ]
        raise ValueError(f"{differs} ({'; '.join(changed)})")
    missing = [k for k in range(config.num_images) if not (folder / f"{k + 1:05}.png").exists()]

    fields = {k: v for k, v in asked.items() if v is not None and k != "rgb"} | {
        "seed": seed,
        "format": "json",
    }
    draw = from_run(Path(config.run)) if config.run else from_server(config.server)
    bar = tqdm(total=config.num_images, initial=config.num_images - len(missing), unit="image")
    while missing:
        # whole shares: a picture never depends on where the last run stopped
        first = missing[0] - missing[0] % SHARE
        answer = draw(fields | {"num_samples": SHARE, "first_index": first})
        if before and before["drawn"] != answer["settings"]:
            raise ValueError(f"{differs} (by {before['drawn']}; this is {answer['settings']})")
        before = {"seed": seed, "asked": asked, "drawn": answer["settings"]}
        folder.mkdir(parents=True, exist_ok=True)
        write_json(settings_file, before)
        for entry in answer["images"]:
            if entry["index"] in missing:
                png = converted(base64.b64decode(entry["png"]), config.rgb)
                write_atomic(folder / f"{entry['index'] + 1:05}.png", png)
                missing.remove(entry["index"])
                bar.update()
    bar.close()
    print(f"{config.num_images} images of seed {seed} in {folder}")


def converted(png: bytes, rgb: bool) -> bytes:
    """Return the picture with three channels where that is asked for."""
    if not rgb:
        return png
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def from_server(address: str) -> Draw:
    """Ask a server. A full queue is waited for, and a retry is safe: the seed names the pictures."""
    import httpx

    client = httpx.Client(timeout=600, transport=httpx.HTTPTransport(retries=3))

    def draw(fields: dict[str, Any]) -> dict[str, Any]:
        for wait in (1, 2, 4, 8, 15, 30, 30, 30, 0):
            try:
                answer = client.post(address, json=fields)
            except httpx.HTTPError as error:
                raise ValueError(
                    f"{address} does not answer ({error}): ./scripts/serve start, or draw with --run"
                ) from error
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(wait)
        return checked(answer.status_code, answer.content)

    return draw


def from_run(directory: Path) -> Draw:
    """Answer as the server would: the same handler over the same exported model, in this process."""
    import torch

    sys.path.insert(0, str(Path(__file__).parent.parent / "handlers"))
    from diffusion_handler import DiffusionHandler
    from energy_handler import EnergyHandler

    from genserve.export import export
    from genserve.run import model_config

    handler = {"diffusion": DiffusionHandler, "energy": EnergyHandler}[model_config(directory).family]()
    handler.version = "local"
    with tempfile.TemporaryDirectory() as folder:
        export(directory, Path(folder))
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        handler.load(Path(folder), device, lanes=1 if device.type == "cuda" else os.cpu_count() or 1)

    def draw(fields: dict[str, Any]) -> dict[str, Any]:
        (reply,) = handler.replies([{"body": fields}], [{}])
        return checked(reply.status, reply.body)

    return draw


def checked(status: int, body: bytes) -> dict[str, Any]:
    """Return the answer, or raise what the server says is wrong."""
    try:
        answer: dict[str, Any] = json.loads(body)
    except ValueError:
        answer = {}
    if status == 200:
        return answer
    error = answer.get("error") or {
        "field": "server",
        "message": body.decode(errors="replace"),
        "allowed": "",
    }
    raise ValueError(
        f"{error['field']}: {error['message']} (allowed: {error['allowed']})"
        if error["allowed"]
        else str(error["message"])
    )


if __name__ == "__main__":
    configure(main, GenerateConfig, __doc__.split("\n\n")[0], sys.argv[1:])
