"""Pictures as other servers answer them."""

import base64
import secrets
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, File, Query, Request, UploadFile
from pydantic import Field
from starlette.responses import Response

from genserve.files import write_atomic
from genserve.gateway.peers.asking import FAMILIES, Asking, Count, Family, Strict, png
from genserve.gateway.state import Gateway, Shared
from genserve.gateway.upstream import UpstreamError
from genserve.serving.fields import BadRequest

USUAL = {"step_size": 10.0, "noise_scale": 0.005}  # of those servers' energies
KEPT = 1000  # pictures in the folder of outputs
router = APIRouter(tags=["routes of other servers"])


class ByFamily(Strict):
    """Pictures of a family."""

    model_type: Family
    num_samples: Count = 16
    seed: int | None = Field(None, ge=0)


class Diffusion(Strict):
    """Pictures of a diffusion model, as base64."""

    num_images: Annotated[int, Field(ge=1, le=16)] = 1
    num_steps: int = Field(50, ge=1, le=1000)
    guidance_scale: float = Field(1.0, ge=0, le=20)
    seed: int | None = Field(None, ge=0)
    return_format: Literal["base64", "png"] = "base64"


class Energies(Strict):
    """Pictures of an energy, as base64."""

    num_images: Annotated[int, Field(ge=1, le=16)] = 1
    num_steps: int | None = Field(None, ge=1, le=1000)
    step_size: float | None = None
    noise_scale: float | None = None
    seed: int | None = Field(None, ge=0)
    return_format: Literal["base64", "png"] = "base64"


class Sent(Strict):
    """A picture."""

    image_base64: str


async def written(gateway: Gateway, request: Request, sent: ByFamily) -> dict[str, Any]:
    """Return where pictures are that were drawn into a file."""
    asking = Asking(gateway, request, *FAMILIES[sent.model_type])
    _, body = await asking.answer(num_samples=sent.num_samples, seed=sent.seed)
    name = f"{asking.model}-{secrets.token_hex(8)}.png"
    folder = gateway.options.outputs
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / name, body)
    for old in sorted(folder.glob("*-*.png"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
        old.unlink(missing_ok=True)
    return {
        "message": f"{sent.num_samples} pictures of {asking.model}",
        "image_path": str(folder / name),
        "url": f"/outputs/{name}",
    }


@router.get("/outputs/{name}", response_class=Response)
async def output(gateway: Shared, name: str) -> Response:
    """Return a picture that `/generate` wrote."""
    folder = gateway.options.outputs.resolve()
    path = (folder / name).resolve()
    if path.parent != folder or path.suffix != ".png" or not path.is_file():
        raise BadRequest("name", "there is no such picture", f"one of the latest {KEPT}", 404)
    return Response(path.read_bytes(), media_type="image/png")


@router.post("/generate_image", response_class=Response)
async def generate_image(gateway: Shared, request: Request, sent: ByFamily) -> Response:
    """Draw pictures, one grid."""
    asking = Asking(gateway, request, *FAMILIES[sent.model_type])
    return png(*await asking.answer(num_samples=sent.num_samples, seed=sent.seed))


@router.get("/generate", response_class=Response)
async def generate_one(gateway: Shared, request: Request) -> Response:
    """Draw one picture."""
    return png(*await Asking(gateway, request, *FAMILIES["diffusion"]).answer(num_samples=1))


@router.post("/generate/diffusion", response_model=None)
async def generate_diffusion(gateway: Shared, request: Request, sent: Diffusion) -> Response | dict[str, Any]:
    """Draw pictures of the diffusion model."""
    fields = {"sampler": "ddim", "steps": sent.num_steps, "guidance": sent.guidance_scale, "seed": sent.seed}
    return await listed(
        Asking(gateway, request, *FAMILIES["diffusion"]), sent.num_images, sent.return_format, fields
    )


@router.post("/generate/ebm", response_model=None)
async def generate_ebm(gateway: Shared, request: Request, sent: Energies) -> Response | dict[str, Any]:
    """Draw pictures of the energy."""
    check_steps(step_size=sent.step_size, noise_scale=sent.noise_scale)
    fields = {"steps": sent.num_steps, "seed": sent.seed}
    asking = Asking(gateway, request, *FAMILIES["ebm"])
    return await listed(asking, sent.num_images, sent.return_format, fields)


def check_steps(**sent: float | None) -> None:
    """Refuse sizes of steps other than the usual one of those servers, which stands for the model's own."""
    for name, value in sent.items():
        if value not in (None, USUAL[name]):
            allowed = f"{USUAL[name]}, which stands for the model's own"
            raise BadRequest(name, "this energy has steps of its own", allowed)


async def listed(
    asking: Asking, n: int, return_format: str, fields: dict[str, Any]
) -> Response | dict[str, Any]:
    """Return pictures one by one in base64 with what they depend on, or as one PNG."""
    if return_format == "png":
        return png(*await asking.answer(num_samples=n, **fields))
    drawn = await asking.json(num_samples=n, format="json", **fields)
    description = await asking.json(task="describe")
    channels, height, width = description["shape"]
    settings = drawn["settings"]
    return {
        "success": True,
        "message": f"{n} pictures of {asking.model}",
        "num_images": n,
        "images": [row["png"] for row in drawn["images"]],
        "metadata": {
            "model": asking.model,
            "num_steps": settings.get("steps"),
            "seed": drawn["seed"],
            "image_size": f"{width}x{height}",
            "format": "RGB" if channels == 3 else "L",
            "sampling_method": settings.get("sampler"),
            "nfe": drawn["nfe"],
            "settings": settings,
        },
    }


@router.post("/compute_energy")
async def compute_energy(
    gateway: Shared,
    request: Request,
    image_base64: Annotated[str | None, Query()] = None,
    sent: Annotated[Sent | None, Body()] = None,
) -> dict[str, Any]:
    """Return the energy of a picture, and its rank among those of the training set."""
    picture = sent.image_base64 if sent else image_base64
    if picture is None or (sent and image_base64):
        raise BadRequest("image_base64", "one picture is needed", "in the body, or in the query")
    read = await Asking(gateway, request, *FAMILIES["ebm"]).json(task="score", images=picture)
    (row,) = read["images"]
    message = f"it has more energy than {100 * row['rank']:.1f} % of the training images"
    return {"energy": row["energy"], "rank": row["rank"], "message": message}


@router.get("/models/info")
async def info(gateway: Shared, request: Request) -> dict[str, Any]:
    """Return what each model is; of one that does not answer as ours do, only why."""
    models: dict[str, Any] = {}
    for name in sorted(await gateway.upstream.models()):
        try:
            models[name] = await Asking(gateway, request, name).json(task="describe")
        except (BadRequest, UpstreamError) as error:
            models[name] = {"error": str(error)}
        except ValueError:
            models[name] = {"error": "it does not describe itself"}
    return {"models": models}


@router.get("/classes")
async def classes(gateway: Shared, request: Request) -> dict[str, Any]:
    """Return the names of the classes that the diffusion model draws."""
    asking = Asking(gateway, request, *FAMILIES["diffusion"])
    return {"classes": (await asking.json(task="describe"))["classes"], "model": asking.model}


@router.get("/diffusion/generate")
async def diffusion_grid(
    gateway: Shared,
    request: Request,
    num_samples: Count = 16,
    diffusion_steps: Annotated[int, Query(ge=1, le=1000)] = 50,
    image_size: int | None = None,
    seed: Annotated[int | None, Query(ge=0)] = None,
) -> dict[str, Any]:
    """Draw pictures of the diffusion model, one grid in base64."""
    asking = Asking(gateway, request, *FAMILIES["diffusion"])
    return await grid(asking, num_samples, image_size, sampler="ddim", steps=diffusion_steps, seed=seed)


@router.get("/ebm/generate")
async def ebm_grid(
    gateway: Shared,
    request: Request,
    num_samples: Count = 16,
    steps: Annotated[int | None, Query(ge=1, le=1000)] = None,
    step_size: float | None = None,
    image_size: int | None = None,
    seed: Annotated[int | None, Query(ge=0)] = None,
) -> dict[str, Any]:
    """Draw pictures of the energy, one grid in base64."""
    check_steps(step_size=step_size)
    asking = Asking(gateway, request, *FAMILIES["ebm"])
    return await grid(asking, num_samples, image_size, steps=steps, seed=seed)


@router.get("/gan/generate")
@router.get("/vae/generate")
async def latent_grid(
    gateway: Shared,
    request: Request,
    num_samples: Count = 16,
    seed: Annotated[int | None, Query(ge=0)] = None,
) -> dict[str, Any]:
    """Draw pictures of the GAN or the VAE, one grid in base64."""
    family = request.url.path.split("/")[1]
    return await grid(Asking(gateway, request, *FAMILIES[family]), num_samples, None, seed=seed)


async def grid(asking: Asking, n: int, size: int | None, **fields: Any) -> dict[str, Any]:
    """Return a grid of pictures in base64."""
    if size is not None and size not in (await asking.json(task="describe"))["shape"][1:]:
        raise BadRequest("image_size", "the model has another size", "leave it out")
    _, body = await asking.answer(num_samples=n, **fields)
    return {"num_samples": n, "image_base64_png": base64.b64encode(body).decode()}


@router.post("/predict_cifar10")
async def predict_cifar10(
    gateway: Shared, request: Request, file: Annotated[UploadFile, File()]
) -> dict[str, Any]:
    """Return the class of a picture."""
    picture = base64.b64encode(await file.read()).decode()
    asking = Asking(gateway, request, "classifier")
    names = (await asking.json(task="describe"))["classes"]
    (row,) = (await asking.json(images=picture, top_k=len(names)))["images"]
    probabilities = {top["index"]: top["probability"] for top in row["top"]}
    return {
        "pred_id": row["index"],
        "pred_label": row["label"],
        "probs": [probabilities[k] for k in range(len(names))],
    }
