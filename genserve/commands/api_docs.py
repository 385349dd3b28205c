"""Write docs/api.md and docs/gateway-api.md from the code: `genserve api-docs`. Tests compare them."""

from argparse import ArgumentParser
from pathlib import Path

from genserve.cli import plain_errors
from genserve.commands.api_families import SECTIONS
from genserve.gateway import schema_page
from genserve.places import PROJECT
from genserve.sampling.solvers import SOLVERS, WALKS
from genserve.serving.fields import BadRequest, Fields, allowed, parse
from genserve.serving.hosts.held import CONTENT_TYPE, HOLD_S
from genserve.serving.instances import INSTANCES_MAX
from genserve.serving.limits import PIXELS_MAX, WORK_MAX
from genserve.serving.requests.diffusion import DiffusionRequest
from genserve.serving.requests.energy import EnergyRequest
from genserve.serving.requests.pictures import PictureRequest

TARGET, GATEWAY = Path("docs/api.md"), Path("docs/gateway-api.md")  # of the checkout

HEAD = """<!-- Made by `genserve api-docs` from genserve/serving/requests/: edit there. -->
# The API of a server

Addresses: predictions on port 8080, management on 8081, metrics on 8082, all on loopback; in the container, predictions
and metrics on every interface.

## `POST /predictions/diffusion`, `POST /predictions/energy`

Fields go in a JSON body (`Content-Type: application/json`), a form, or multipart. `GET
/diffusion/predict?num_samples=4&seed=1` takes the same fields as a query string (TorchServe does not show a query
string of `/predictions` to a model). Every field is optional: no body at all gives a grid of 16. How values are written
stands below the tables.

Both take:
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

SOLVER_TABLE = """
### Samplers

| `sampler` | evaluations of 10 steps | `eta` | what it is |
|---|---:|---|---|
"""

TAIL = f"""
### From a picture, and between two seeds

| sent to a diffusion model | what happens |
|---|---|
| `init_image` | the picture gets noise and is drawn again from there, by the last steps only: `strength` is their share. `num_samples` images are as many variations. Without a `label` no class is drawn; with one, the picture turns into that class |
| `init_image` and `mask` | what is white in the mask stays, to the byte; the rest is drawn so that it fits. Each step is run `resample` times, 4 if not given: at 1 seams are seen ([quality.md](quality.md#filling-what-a-mask-leaves-out)) |
| `seed_to` | image k of n is drawn from noise at t = k / (n - 1) on the way from `seed` to `seed_to`. All have one class: `label`, or the one that is drawn for `seed`. In that class the ends are the plain images `first_index` of the two seeds. JSON has `t`, `seed`, `seed_to` and that `index` for each image, the header `X-T` every `t` |

With `strength` s and n `steps`, s x n steps are run, rounded, at least one. The first of them says how much noise the
picture gets, so what a strength does also depends on the schedule. At strength 1 the start is noise alone, and the
answer is the same as without a picture, but for what a mask keeps. JSON (`settings`) and headers (`X-Strength`,
`X-Resample`, `X-Seed-To`) name what was used. Pictures and masks are sent like an energy's `images`: base64 in JSON, a
file in multipart; see below.

### What an energy is asked

| `task` | what happens | answer |
|---|---|---|
| `sample` | draws from noise, with a diffusion sampler on the energy's gradient or by Langevin dynamics | pictures |
| `score` | one look at each picture at noise level `sigma`, without a class | JSON: `energy`, and `rank`, the share of training images of a lower energy; 1 is more than any |
| `refine` | walks from the pictures, at noise level `sigma`, downhill or with `noise` | pictures; energies before and after |
| `restore` | with a `mask`, fills what is black in it and keeps what is white; without, takes pictures for ones with noise of `sigma` and removes it | pictures |
| `explain` | one look; red where a brighter pixel would raise the energy, blue where it would lower it | pictures in colour |

Pictures are sent as base64 (`images`: one or a list), as a file in multipart (`-F images=@seven.png`; the host keeps
one file of a name), or as the whole body (`--data-binary @seven.png -H 'Content-Type: image/png'`, with the other
fields in the query of `/energy/predict`; without its type the host takes it for a form, which is an error). They must
have the model's size and be opaque; [pictures.md](pictures.md) says how they are read. `POST /explanations/energy` is
the task `explain`. No log has a picture in it, but that the host logs an address whole whose escapes it cannot read.

Every answer carries the energies of its pictures at the model's own level (`score`, `refine` and `explain`: at
`sigma`), in JSON and in the headers `X-Energy` and `X-Rank` (`refine`: `X-Energy-Before`, `X-Rank-Before` too; `mala`:
`X-Acceptance`, the share of its steps that were taken). Energies of one model and one `sigma` compare with each other;
nothing else does. A reading is one evaluation, counted in `X-NFE`; an evaluation of an energy includes its gradient.

### How values are written

The same rules hold in JSON, forms, multipart, query strings and gRPC.

| what | in JSON | in text (form, multipart, query string, gRPC) |
|---|---|---|
| not given | left out, or `null` | left out; an empty value is refused |
| whole number | digits: `4`, not `4.0` or `"4"` | the same digits: `4`, not `4.0`, `+4`, `04`, `1_000` or ` 4` |
| number | `0.5`, `1e-3` | the same; neither has NaN or infinity |
| yes or no | `true`, `false` | `true`, `1`, `yes`, `on`, or `false`, `0`, `no`, `off`, in any case |
| word | `"ddim"`, in this case | `ddim`, in this case |
| list | `[1, 2, 3]` | `1,2,3`; the comma in a `data:` URL splits nothing |
| picture | base64 | base64, or in multipart and gRPC the file itself |

Base64 may be of the standard or the URL-safe alphabet, with or without padding, in lines, or a `data:...;base64,` URL.
In a form, `+` is sent as `%2B` (`curl --data-urlencode`). A field that comes twice counts once: the host keeps the last
one, in JSON, forms, multipart and query strings alike, and a form's before a query string's. Fields in a JSON body and
beside it, in the query, are refused. A compressed body (`Content-Encoding`) is 415.

TorchServe's customary key is taken, too: `{{"data": {{...}}}}` or `-F data=@fields.json` is the fields in it, a JSON object
or its text, and nothing may stand beside. A picture in `data` is `images`, and may have fields beside it.

### KServe's protocols

Several requests go in one body, share evaluations, and are answered together. The host hands every address to the same
handler without saying which was called, so the body decides, wherever it is sent. Nothing in it is streamed (400).

| | first protocol (v1) | second, the Open Inference Protocol (v2) |
|---|---|---|
| address | `POST /v1/models/NAME:predict`, `:explain` | `POST /v2/models/NAME/infer`; no `/versions/V` |
| body | `{{"instances": [{{...}}, ...]}}`, the fields of a request each | `{{"inputs": [{{"name", "shape", "datatype", "data"}}], "id", "outputs"}}`, an input is a field |
| answer | `{{"predictions": [...]}}` in the same order; of `:explain` `{{"explanations": [...]}}` | `{{"model_name", "model_version", "id", "outputs": [...]}}` |
| of one request | what `format=json` answers, or for another `format` `{{"b64", "content_type", "headers"}}` | a row of every output |
| a mistake in one | `{{"error", "field", "message", "allowed", "status"}}` in its place. The status is 200 if any is answered, else that of the first | the body is refused with its status; `error` begins `FIELD: request K of the batch:` |
| limits | 1 to {INSTANCES_MAX} requests; work and pixel values of all together as of one request ([Limits](#limits)) | the same, and half the pixel values |

An instance is somebody's request and does not fail with its neighbours; v2 has no place for an error beside tensors.
What concerns no single request (too much together, a server that drains) refuses the body.

In v1 bytes may be written `{{"b64": TEXT}}` or as text, and an instance `{{"data": ...}}` is read as a body is.

In v2 the first number of every shape is the batch: seed `[n]` and label `[n]` are n requests, and an input of the
shape `[]`, `[1]` or `[1, 1]` is the same in all of them. Shape `[n, k]` is a list of k in each, for example one label
per image. All requests have as many images, and one `format`, `task` and `scale`. `num_samples` is 16 if not given,
here as everywhere. `BYTES` is text, and data are in JSON only (tritonclient: `binary_data=False`). `outputs` chooses
among these; an answer has those that apply:

| output | datatype | shape | meaning |
|---|---|---|---|
{{outputs}}
Of the protocols' other addresses the host has none on this port: `/v2/health/...`, `/v2/models/NAME`, `/ready` and
`/v1/models/NAME` are 404. Its `ts_open_inference_protocol=true` adds `/v2/health/live` and `/ready` as constants that
say nothing of a model, and is off. [The shipped proxy](deploy.md#the-door) answers some of them truly.

### Limits

Further limits: images x network evaluations of one request at most {WORK_MAX:,} (`heun` takes 2 `steps` - 1, guidance
doubles, `resample` multiplies); an answer at most {PIXELS_MAX:,} values, `scale` and frames included.

### What an image depends on

On the model, `seed`, its index (`first_index`, `first_index` + 1, ...), its class and the settings; on nothing else.
Not on how many images were asked for, on what else the server was doing, on the worker or how the answer is sent, but
for float rounding: at most 1 of 255 in any pixel, none at all in bf16 on a CPU that has it, and the last digit of a
number. A retry is safe; a larger `num_samples` keeps the first images. `precision` is one of the settings: bf16 where
the machine has it in hardware, else fp32. The same seed looks the same in both, but is not equal.

### Answers

| `format` | content type | body |
|---|---|---|
| `png` | `image/png` | one grid, rows of `columns`, 2 pixels apart |
| `json` | `application/json` | `{{"images": [{{"index", "seed", "label", "png"}}], "seed", "nfe", "settings"}}`, `png` in base64; of an energy also "energy" and "rank" |
| `npy` | `application/x-npy` | uint8 (N, H, W, C) |
| `zip` | `application/zip` | one PNG an image, `00001.png` is index 0 |
| `filmstrip` | `image/png` | a row an image: up to nine noise levels, then the picture; x_t / sqrt(1 + sigma^2), as the papers draw it |
| `gif` | `image/gif` | the grid at up to 49 noise levels, then the pictures |

Headers: `X-Seed`, `X-Steps`, `X-Sampler`, `X-Schedule`, `X-Eta`, `X-Strength`, `X-Resample`, `X-Seed-To`, `X-NFE`
(network evaluations of each image), `X-Work` (of all together; what a stream will take at most), `X-Model-Version`, and
`Server-Timing` with `queue` (before the first evaluation), `sample` and `encode` in milliseconds.

### Streams

`stream=true` answers `multipart/x-mixed-replace`: PNG grids, each with `X-NFE` and `X-Sigma` in its part's head, the
finished picture last. `<img src="http://127.0.0.1:8080/diffusion/predict?steps=1000&stream=true">` plays it in a
browser, without a script. `stream=jsonl` answers lines `{{"step", "nfe", "sigma", "preview"}}`, `preview` a grid in
base64; the last one has `sigma` 0, everything that `format=json` has, and as `server_timing` what the header
`Server-Timing` of a plain answer says. Both show at most `frames` frames; a short request may be over before the first
is due, and then all come at once. A client that hangs up frees its place within a
slice of time (5 to 100 ms). A stream that fails when its status was long sent ends without a picture (`jsonl`: with a
line `{{"error"}}`). An archive built with `--mode batched` does not stream. The header `X-Accel-Buffering: no` lets an
nginx in front pass frames on at once.

For a request without a stream the host does not tell that its client has left, so it is computed to its end. A proxy
that wants it to end sooner sends the header `X-Hang-Up: notice`. What is ready within {HOLD_S:g} s is then answered as
always. What takes longer becomes a stream of the type
`{CONTENT_TYPE}`, with the status 200: an empty line; one line of JSON,
`{{"status", "content_type", "headers"}}`, when it is ready; and the bytes of the ordinary answer. The gateway does this
for its clients.

### gRPC

Unary `Predictions` on 127.0.0.1:8083 takes the same fields as the `input` map, as text, and returns the same bytes; an
error is the JSON below, with status OK, because the host passes on no other. A message above 262,144 bytes ends as
CANCELLED, without a word on why. `stream` is refused. `StreamPredictions` must not be called: on this host it stops the
worker and all it was doing for others, which is why gRPC listens on loopback alone.

`{{"task": "describe"}}` answers with the model: family, shape, classes, defaults, measured quality, device, precision,
threads, mode.

### Errors

What is wrong with a request is status 400 and one JSON object, for example for `{{"num_samples": 65}}`:

```json
{{example}}
```

`error` is one line for people, the three beside it are its parts. `field` is `body` for what concerns no single field,
and for a field without a name. A compressed body is 415; one above 262,144 bytes 413; a full queue, or a model without
workers, 503; a fault of the server 500 with the same object and an empty `field`; a request that is not done after
120 s (`deadline` in `handlers/*.yaml`) 504. A bad request costs its neighbours in the batch nothing.

A busy server answers 503 at once to a request that could not end before the deadline beside those that are open, or
whose size has no place left ([Limits](operations.md#limits)). A server that is being stopped answers so to every
request. There is `{{"error", "message"}}` without `field`, and `Retry-After` says in how many seconds it is worth asking
again.

What the host refuses itself, before a model sees it, looks different: `{{"code", "type", "message"}}`, where `type` is
a Java class. Some of these are a client's mistake with the status 500 or 403:

- a form with a broken percent escape (`seed=%zz`): 500; in a query string: 403;
- a form or multipart field without a name (`-d =3`, `-F =3`): 500;
- a picture as the body without its content type, as `curl --data-binary` sends it: 500, or our 400.

HTTP/2 without TLS (`curl --http2-prior-knowledge`) ends the connection.
"""


OUTPUT_TABLE = """
In KServe's second protocol an answer has, of n requests of k items each:

| output | datatype | shape | meaning |
|---|---|---|---|
"""


def row(kind: type[Fields], name: str) -> str:
    """Return a field's row."""
    field = kind.model_fields[name]
    default = "" if field.default is None else f"`{str(field.default).lower()}`"
    return f"| `{name}` | {default} | {allowed(kind, name)} | {field.description} |\n"


def solver_rows() -> str:
    """Return a row for each sampler."""
    rows = ""
    for name, solver in (WALKS | SOLVERS).items():
        eta = "yes" if solver.takes_eta else ""
        what = solver.summary + ("; of an energy" if solver.slopes else "")
        rows += f"| `{name}` | {solver.evaluations(10)} | {eta} | {what} |\n"
    return rows


def page() -> str:
    """Return the page: fields that are alike in every family once, all others with each family."""
    kinds = (DiffusionRequest, EnergyRequest)
    shared = [n for n in kinds[0].model_fields if all(n in k.model_fields for k in kinds)]
    shared = [name for name in shared if len({row(kind, name) for kind in kinds}) == 1]
    own = [[row(kind, name) for name in kind.model_fields if name not in shared] for kind in kinds]
    try:
        parse(DiffusionRequest, {"num_samples": 65}, False)
    except BadRequest as error:
        example = error.body().decode()
    tables = HEAD + TABLE + "".join(row(DiffusionRequest, name) for name in shared)
    for title, rows in zip((DIFFUSION, ENERGY), own, strict=True):
        tables += title + TABLE + "".join(rows)
    tables += SOLVER_TABLE + solver_rows()
    tail = TAIL.replace("{example}", example).replace("{outputs}", output_rows(PictureRequest))
    return tables + tail + "".join(map(section, SECTIONS))


def output_rows(kind: type[Fields]) -> str:
    """Return a row for each output of KServe's second protocol."""
    return "".join(f"| `{name}` | {' | '.join(row)} |\n" for name, row in kind.outputs.items())


def section(name: str) -> str:
    """Return the part of the page about another family's address."""
    part = SECTIONS[name]
    kind = part.kind
    rows = "".join(row(kind, field) for field in kind.model_fields)
    head = f"\n## `POST /predictions/{name}`\n\n{part.prose.strip()}\n"
    return head + TABLE + rows + OUTPUT_TABLE + output_rows(kind)


def run(argv: list[str]) -> None:
    """Write the pages."""
    ArgumentParser(description=__doc__).parse_args(argv)
    with plain_errors():
        (PROJECT / TARGET).write_text(page())
        (PROJECT / GATEWAY).write_text(schema_page.page())
