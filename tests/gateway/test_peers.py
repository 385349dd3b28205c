"""The requests of other servers' own clients, as those send them."""

import base64
import io
from typing import Any

import pytest
from PIL import Image
from real_gateway import Gateway
from real_server import ROOT

pytestmark = pytest.mark.server
SEVEN = base64.b64encode((ROOT / "docs" / "images" / "seven.png").read_bytes()).decode()


def size(png: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(png)) as picture:
        return picture.size


@pytest.mark.parametrize("family", ["diffusion", "energy"])
def test_pictures_are_written_to_a_file_of_their_own(gateway: Gateway, family: str) -> None:
    body = {"model_type": family, "num_samples": 4, "seed": 1}
    with gateway.client() as client:
        first, second = (client.post("/generate", json=body).json() for _ in range(2))
        assert first["image_path"] != second["image_path"]
        pictures = [client.get(one["url"]).content for one in (first, second)]
        grid = client.post("/generate_image", json=body)
    assert pictures[0] == pictures[1] == grid.content
    assert grid.headers["content-type"] == "image/png"
    with open(first["image_path"], "rb") as file:
        assert file.read() == grid.content


@pytest.mark.parametrize(
    ("path", "fields", "sampler"),
    [
        ("/generate/diffusion", {"num_steps": 10, "guidance_scale": 1.0}, "ddim"),
        ("/generate/ebm", {"num_steps": 10, "step_size": 10.0, "noise_scale": 0.005}, "ddim"),
    ],
)
def test_pictures_come_one_by_one_in_base64(
    gateway: Gateway, path: str, fields: dict[str, Any], sampler: str
) -> None:
    with gateway.client() as client:
        answer = client.post(path, json=fields | {"num_images": 2, "seed": 7}).json()
        image = client.post(path, json=fields | {"num_images": 2, "seed": 7, "return_format": "png"})
    assert (answer["success"], answer["num_images"], len(answer["images"])) == (True, 2, 2)
    assert {size(base64.b64decode(png)) for png in answer["images"]} == {(28, 28)}
    about = answer["metadata"]
    assert (about["seed"], about["num_steps"], about["image_size"], about["format"]) == (7, 10, "28x28", "L")
    assert about["sampling_method"] == sampler
    assert size(image.content)[0] > 28


def test_a_picture_has_an_energy_from_the_body_and_from_the_query(gateway: Gateway) -> None:
    with gateway.client() as client:
        body = client.post("/compute_energy", json={"image_base64": SEVEN}).json()
        query = client.post("/compute_energy", params={"image_base64": SEVEN}).json()
    assert body == query
    assert 0 <= body["rank"] <= 1


@pytest.mark.parametrize(
    "path",
    [
        "/diffusion/generate?num_samples=4&diffusion_steps=5&image_size=28",
        "/ebm/generate?num_samples=4&steps=5",
    ],
)
def test_a_grid_comes_in_json(gateway: Gateway, path: str) -> None:
    with gateway.client() as client:
        answer = client.get(path).json()
    assert answer["num_samples"] == 4
    assert size(base64.b64decode(answer["image_base64_png"]))[0] > 56


def test_one_picture_and_what_there_is(gateway: Gateway) -> None:
    with gateway.client() as client:
        assert size(client.get("/generate").content) == (28, 28)
        assert client.get("/classes").json()["classes"] == list("0123456789")
        models = client.get("/models/info").json()["models"]
    assert models["diffusion"]["shape"] == [1, 28, 28]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("POST", "/generate", {"model_type": "nothing"}, 400, "model_type"),
        ("POST", "/generate", {"model_type": "diffusion", "num_samples": 0}, 400, "num_samples"),
        ("POST", "/generate", {"model_type": "diffusion", "epochs": 1}, 400, "epochs"),
        ("POST", "/generate", [], 400, "body"),
        ("POST", "/generate_image", {"model_type": "gan"}, 404, "model_type"),
        ("POST", "/generate", {"start_word": "the", "length": 10}, 404, "model_type"),
        ("POST", "/embed", {"word": "river"}, 404, "model_type"),
        ("POST", "/generate/ebm", {"step_size": -1}, 400, "step_size"),
        ("POST", "/compute_energy", {"image_base64": "no picture"}, 400, "images"),
        ("POST", "/compute_energy", None, 400, "image_base64"),
        ("GET", "/diffusion/generate?image_size=64", None, 400, "image_size"),
        ("GET", "/diffusion/generate?num_samples=65", None, 400, "num_samples"),
        ("GET", "/outputs/..%2fjobs.png", None, 404, "name"),
    ],
)
def test_what_is_wrong_is_never_answered_200(
    gateway: Gateway, method: str, path: str, body: Any, status: int, field: str
) -> None:
    with gateway.client() as client:
        answer = client.request(method, path, json=body)
    assert answer.status_code == status, answer.text
    if path != "/outputs/..%2fjobs.png":
        assert answer.json()["field"] == field
