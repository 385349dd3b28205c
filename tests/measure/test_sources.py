"""A setting means the same to a run and to a server; the rest is in test_evaluate.py."""

import base64
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loading import service
from PIL import Image
from real_server import ROOT

from genserve.measure import sources
from genserve.measure.reference import quiet
from genserve.measure.sources import Plan, asked, drawn, read, request_fields, shape_of
from genserve.runs.contract import Spec
from genserve.sampling.defaults import Defaults
from genserve.sampling.solvers import SAMPLERS, SOLVERS
from genserve.serving.fields import parse
from genserve.serving.requests.diffusion import DiffusionRequest

DIFFUSION = Defaults(samplers=SAMPLERS, sampler="ddim", steps=9, guided=True, sigma_min=0.01, sigma_max=80.0)
ENERGY = Defaults(samplers=tuple(SOLVERS), sampler="ddim", steps=9, sigma_min=0.01, sigma_max=80.0)


def plan(**more: Any) -> Plan:
    usual = {
        "settings": (),
        "n": 20,
        "seeds": range(3, 4),
        "class_counts": torch.ones(2),
        "unconditional": False,
    }
    return Plan(**usual | more)


class Server:
    """A model whose image k of a seed is (seed, k, class) everywhere; it keeps its requests."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.weights = "a"
        self.said = {"family": "diffusion", "shape": [3, 4, 4], "classes": ["cat", "dog"], "weights": "a"}
        self.said |= {"sampler": "ddim", "steps": 25, "eta": 1.0, "schedule": "cosine", "guidance": 1.5}
        self.said |= {"name": "x", "sigma_min": 0.002, "sigma_max": 40.0, "device": "of no contract"}

    def answers(self, _: str, requests: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for request in requests:
            self.asked.append(request)
            yield self.said if request.get("task") == "describe" else self.answer(request)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        first, labels = request.get("first_index", 0), request.get("label")
        images = []
        for k in range(request["num_samples"]):
            label = self.said["classes"].index(labels[k]) if isinstance(labels, list) else 9
            buffer = io.BytesIO()
            Image.new("RGB", (4, 4), (request["seed"], first + k, label)).save(buffer, "PNG")
            images.append({"index": first + k, "png": base64.b64encode(buffer.getvalue()).decode()})
        return {"images": images, "nfe": 25, "settings": {"weights": self.weights}}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setattr(sources, "answers", server.answers)
    return server


def test_images_of_a_server_come_in_order_with_classes_in_fair_shares(server: Server) -> None:
    first, second = asked("there", plan(seeds=range(3, 5)), sources_quiet)
    for seed, images in ((3, first), (4, second)):
        assert images.name == "ddim:25:schedule=cosine:eta=1:guidance=1.5"
        assert (images.known["seed"], images.known["nfe"]) == (seed, 25)
        assert images.y is not None
        assert images.y.bincount().tolist() == [10, 10]
        expected = torch.stack([torch.full((20,), seed), torch.arange(20), images.y], dim=1)
        assert images.x.equal(expected.byte()[:, :, None, None].expand(-1, -1, 4, 4))
    assert [request.get("num_samples") for request in server.asked] == [None, 1, 16, 4, 16, 4]


def test_settings_are_asked_for_as_fields_and_tried_before_the_first_takes_its_time(server: Server) -> None:
    names = ("heun:9:guidance=2", "ddim:4:eta=0.5")
    assert [images.name for images in asked("there", plan(settings=names, n=6), sources_quiet)] == list(names)
    expected = [{"sampler": "heun", "steps": 9, "guidance": 2.0}, {"sampler": "ddim", "steps": 4, "eta": 0.5}]
    assert [request["sampler"] for request in server.asked[1:]] == ["heun", "ddim", "heun", "ddim"]
    for request, setting in zip(server.asked[3:], expected, strict=True):
        assert request.items() >= setting.items()


def test_without_classes_a_server_is_told_so(server: Server) -> None:
    (images,) = asked("there", plan(unconditional=True), sources_quiet)
    assert images.y is None
    assert {request["label"] for request in server.asked[2:]} == {"none"}
    server.said["classes"], server.asked = [], []
    (images,) = asked("there", plan(), sources_quiet)
    assert images.y is None
    assert not any("label" in request for request in server.asked)


def test_a_server_that_changes_its_model_or_is_none_of_ours_is_refused(server: Server) -> None:
    def answer(request: dict[str, Any]) -> dict[str, Any]:
        server.weights = "a" if request.get("first_index", 0) == 0 else "b"
        return Server.answer(server, request)

    server.answer = answer  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="changed its model while it drew ddim:25"):
        list(asked("there", plan(), sources_quiet))
    server.said = {"predictions": []}
    with pytest.raises(ValueError, match="does not describe a model of genserve"):
        list(asked("there", plan(), sources_quiet))


def sources_quiet(_: str) -> Any:
    return iter


@pytest.mark.parametrize("text", ["heun", "heun:x", "heun:9:2", "heun:9:sigma_max=4", "heun:9:step_size=1"])
def test_what_is_no_setting_of_a_server_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"KEY one of schedule, guidance, eta; got '{text}'")):
        request_fields(text, DIFFUSION)


def test_settings_of_an_energy_have_keys_of_its_own() -> None:
    expected = {"sampler": "langevin", "steps": 30, "step_size": 0.5, "noise": 0.01}
    assert request_fields("langevin:30:step_size=0.5:noise=0.01", ENERGY) == expected


def test_the_shape_is_read_off_the_first_image(tmp_path: Path) -> None:
    np.save(tmp_path / "gray.npy", np.zeros((5, 4, 6), np.uint8))
    np.save(tmp_path / "colour.npy", np.zeros((5, 4, 6, 3), np.uint8))
    (tmp_path / "folder/cat").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no picture"):
        shape_of(tmp_path / "folder")
    Image.new("RGB", (6, 4)).save(tmp_path / "folder/cat/1.png")
    assert shape_of(tmp_path / "gray.npy") == (1, 4, 6)
    assert shape_of(tmp_path / "colour.npy") == (3, 4, 6)
    assert shape_of(tmp_path / "folder") == (None, 4, 6)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(96, np.uint8), r"must hold uint8 \(N, H, W, C\), it holds uint8 \(96,\)"),
        (
            np.zeros((2, 4, 4, 3), np.float32),
            r"must hold uint8 \(N, H, W, C\), it holds float32 \(2, 4, 4, 3\)",
        ),
        (np.zeros((2, 4, 4), np.uint8), r"must hold uint8 \(N, 4, 4, 3\), it holds uint8 \(2, 4, 4\)"),
        ([np.zeros((2, 4, 4, 3), np.uint8)], "holds several arrays, must be a .npy file of one"),
        (b"PK\3\4 and no more", "is no .npy file of images"),
        (b"", "is no .npy file of images"),
    ],
)
def test_a_file_of_anything_else_is_refused_by_name(tmp_path: Path, array: Any, message: str) -> None:
    file = tmp_path / "x.npy"
    with file.open("wb") as opened:
        if isinstance(array, bytes):
            opened.write(array)
        elif isinstance(array, list):
            np.savez(opened, *array)
        else:
            np.save(opened, array)
    with pytest.raises(ValueError, match=rf"x\.npy {message}"):
        read(file, (3, 4, 4), ())


def test_a_folder_s_classes_count_where_all_are_the_classifier_s(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for k, name in enumerate(("2", "10")):
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4), k).save(tmp_path / name / "0.png")
    (tmp_path / "settings.json").write_text("{}")
    x, y = read(tmp_path, (1, 4, 4), ("10", "7", "2"))
    assert (x[:, 0, 0, 0].tolist(), y.tolist()) == ([0, 1], [2, 0])  # type: ignore[union-attr]
    assert read(tmp_path, (1, 4, 4), ("2", "cat"))[1] is None
    assert caplog.messages[1:] == [
        caplog.messages[0],
        f"{tmp_path}: no class of the classifier: 10; taken without classes",
    ]
    assert caplog.messages[0] == f"{tmp_path}: passed over 1 without a picture's ending (settings.json)"


@pytest.mark.parametrize(
    "classes", [("1", "2", "10"), ("2", "1", "0"), ("cat", "2", "0"), ("none", "1", "b")]
)
def test_a_server_is_asked_by_names_that_mean_the_classes(classes: tuple[str, ...]) -> None:
    y = torch.tensor([0, 1, 2, 2, 1])
    spec = Spec(
        name="x", family="diffusion", shape=(1, 4, 4), classes=classes, sigma_min=0.01, sigma_max=80.0
    )
    request = sources._share(5, 0, 3, y, classes)
    assert parse(DiffusionRequest, request, text=False).resolved(spec)[0].label == tuple(y.tolist())


def test_a_class_called_none_cannot_be_left_out(server: Server) -> None:
    server.said["classes"] = ["none", "dog"]
    with pytest.raises(ValueError, match="has a class called none, so it cannot be asked for no class"):
        list(asked("there", plan(unconditional=True), sources_quiet))


def test_a_run_draws_the_bytes_that_a_server_sends(tmp_path: Path) -> None:
    """An energy in bf16 whose first evaluation could differ; all at once, as their number rounds."""
    energy, text = service(tmp_path, "energy-mnist", precision="bf16"), "dpmpp_2m:4:schedule=tuned"
    five = plan(settings=(text,), n=5, seeds=range(7, 8), class_counts=torch.ones(10))
    (ours,) = drawn(ROOT / "weights/energy-mnist", five, torch.device("cpu"), "bf16", 5, quiet)
    assert ours.y is not None
    labels = [str(k) for k in ours.y.tolist()]
    request = request_fields(text, ENERGY) | {"seed": 7, "label": labels, "format": "npy"}
    (reply,) = energy.answers([request])
    theirs = torch.from_numpy(np.load(io.BytesIO(reply.body))).permute(0, 3, 1, 2)
    assert torch.equal(ours.x, theirs)
