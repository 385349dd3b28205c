"""Write docs/api.md from the requests in genserve: `python scripts/api_docs.py`. A test compares the two."""

from pathlib import Path

from genserve.api import PIXELS_MAX, WORK_MAX, PictureRequest
from genserve.api_diffusion import DiffusionRequest
from genserve.api_energy import EnergyRequest
from genserve.fields import BadRequest, parse

TARGET = Path(__file__).parent.parent / "docs" / "api.md"

HEAD = """<!-- Made by scripts/api_docs.py from genserve/api.py, api_diffusion.py and api_energy.py: edit there. -->
# The API of a server

Addresses: predictions on port 8080, management on 8081, metrics on 8082, all on loopback; in the container, predictions and
metrics on every interface.

## `POST /predictions/diffusion`, `POST /predictions/energy`

Fields go in a JSON body (`Content-Type: application/json`), a form, or multipart. `GET /diffusion/predict?num_samples=4&seed=1`
takes the same fields as a query string (TorchServe does not show a query string of `/predictions` to a model). JSON values have
their JSON types; form and query values are text, a list is `1,2,3`. Every field is optional: no body at all gives a grid of 16.

Both take:

| field | default | allowed | meaning |
|---|---|---|---|
"""

TABLE = """
| field | default | allowed | meaning |
|---|---|---|---|
"""

DIFFUSION = """
A diffusion model also takes:
"""

ENERGY = """
An energy also takes:
"""

TAIL = f"""
### What an energy is asked

| `task` | what happens | answer |
|---|---|---|
| `sample` | draws from noise, with a diffusion sampler on the energy's gradient or by Langevin dynamics | pictures |
| `score` | one look at each picture at noise level `sigma`, without a class | JSON: `energy`, and `rank`, the share of training images of a lower energy; 1 is more than any |
| `refine` | walks from the pictures, at noise level `sigma`, downhill or with `noise` | pictures; energies before and after |
| `restore` | with a `mask`, fills what is black in it and keeps what is white; without, takes pictures for ones with noise of `sigma` and removes it | pictures |
| `explain` | one look; red where a brighter pixel would raise the energy, blue where it would lower it | pictures in colour |

Pictures are sent as base64 in a JSON body (`images`: one or a list, `data:` URLs too), as a file in multipart (`-F images=@seven.png`; the host keeps
one file of a name), or as the whole body (`--data-binary @seven.png -H 'Content-Type: image/png'`, with the other fields in the query of `/energy/predict`; without its
type the host takes it for a form and answers 500). They must have the
model's size and be opaque; [pictures.md](pictures.md) says how they are read. `POST /explanations/energy` is the task `explain`.

Every answer carries the energies of its pictures at the model's own level (`score`, `refine` and `explain`: at `sigma`), in JSON and in the headers `X-Energy`
and `X-Rank` (`refine`: `X-Energy-Before`, `X-Rank-Before` too; `mala`: `X-Acceptance`, the share of its steps that were taken). Energies of one model and one `sigma` compare with each other; nothing else does. A reading is
one evaluation, counted in `X-NFE`; an evaluation of an energy includes its gradient.

### Limits

Further limits: images x network evaluations of one request at most {WORK_MAX:,} (`heun` takes 2 `steps` - 1, guidance doubles);
an answer at most {PIXELS_MAX:,} values, `scale` and frames included.

### What an image depends on

On the model, `seed`, its index (`first_index`, `first_index` + 1, ...), its class and the settings; on nothing else. Not on
how many images were asked for, on what else the server was doing, on the worker or how the answer is sent, but for float rounding:
at most 1 of 255 in any pixel, and none at all in bf16 on a CPU. A retry is safe; a larger `num_samples` keeps the first images.
`precision` is one of the settings: bf16 where the machine has it in hardware, else fp32. The same seed looks the same in both, but is not equal.

### Answers

| `format` | content type | body |
|---|---|---|
| `png` | `image/png` | one grid, rows of `columns`, 2 pixels apart |
| `json` | `application/json` | `{{"images": [{{"index", "seed", "label", "png"}}], "seed", "nfe", "settings"}}`, `png` in base64; of an energy also "energy" and "rank" |
| `npy` | `application/x-npy` | uint8 (N, H, W, C) |
| `zip` | `application/zip` | one PNG an image, `00001.png` is index 0 |
| `filmstrip` | `image/png` | a row an image: up to nine noise levels, then the picture; x_t / sqrt(1 + sigma^2), as the papers draw it |
| `gif` | `image/gif` | the grid at up to 49 noise levels, then the pictures |

Headers: `X-Seed`, `X-Steps`, `X-Sampler`, `X-Schedule`, `X-Eta`, `X-NFE` (network evaluations of each image), `X-Model-Version`, and `Server-Timing`
with `queue` (before the first evaluation), `sample` and `encode` in milliseconds.

### Streams

`stream=true` answers `multipart/x-mixed-replace`: PNG grids, each with `X-NFE` and `X-Sigma` in its part's head, the finished picture last.
`<img src="http://127.0.0.1:8080/diffusion/predict?steps=1000&stream=true">` plays it in a browser, without a script. `stream=jsonl` answers
lines `{{"step", "nfe", "sigma", "preview"}}`, `preview` a grid in base64; the last one has `sigma` 0 and everything that `format=json` has. Both show
at most `frames` frames; a short request may be over before the first is due, and then all come at once. A client that hangs up frees its place
within a slice of time (5 to 100 ms); for a request without a stream the host does not tell, so it is computed to its end. A stream that fails
when its status was long sent ends without a picture (`jsonl`: with a line `{{"error"}}`). An archive built with `--mode batched` does not stream.

### gRPC

Unary `Predictions` on 127.0.0.1:8083 takes the same fields as the `input` map, as text, and returns the same bytes; an error is the JSON below, with
status OK, because the host passes on no other. `stream` is refused. `StreamPredictions` must not be called: on this host it stops the worker and all it was doing
for others, which is why gRPC listens on loopback alone.

`{{"task": "describe"}}` answers with the model: family, shape, classes, defaults, measured quality, device, precision, threads, mode.

### Errors

What is wrong with a request is status 400 and one JSON object, for example for `{{"num_samples": 65}}`:

```json
{{example}}
```

A body above 262,144 bytes is 413; a full queue, or a model without workers, 503; a fault of the server 500 with the same
object and an empty `field`; a request that is not done after 600 s (`deadline` in `handlers/*.yaml`) 504. A bad request costs its neighbours in the batch nothing.
"""


def default(value: object) -> str:
    return "" if value is None else f"`{value}`"


def rows(kind: type[PictureRequest], common: bool) -> str:
    """Return the rows of the fields that a request shares with all others, or has for itself."""
    found = []
    for name, field in kind.model_fields.items():
        if (name in PictureRequest.model_fields and name != "task") != common:
            continue
        extra = field.json_schema_extra
        assert isinstance(extra, dict)
        found.append(f"| `{name}` | {default(field.default)} | {extra['allowed']} | {field.description} |\n")
    return "".join(found)


def page() -> str:
    """Return the whole page."""
    try:
        parse(DiffusionRequest, {"num_samples": 65}, False)
    except BadRequest as error:
        example = error.body().decode()
    special = DIFFUSION + TABLE + rows(DiffusionRequest, False) + ENERGY + TABLE + rows(EnergyRequest, False)
    return HEAD + rows(DiffusionRequest, True) + special + TAIL.replace("{example}", example)


if __name__ == "__main__":
    TARGET.write_text(page())
