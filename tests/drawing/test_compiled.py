"""Pictures drawn in bulk on OpenVINO are those that a server with it sends, alone and in a crowd."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hand_drawn import ask, pixels
from loading import running
from real_server import ROOT
from torch import Tensor

from genserve.drawing.local import draw, served_model
from genserve.families import FAMILIES, load
from genserve.precision import precision_for
from genserve.sampling.settings import Setting
from genserve.serving.joined import JoiningService
from genserve.serving.service import Service, loaded

CPU = torch.device("cpu")
OWN = sorted({"fp32", precision_for(CPU)})
CASES = [
    *(("diffusion-mnist", precision, "dpmpp_2m:6:schedule=tuned:eta=0.7") for precision in (*OWN, "int8")),
    ("consistency-mnist", OWN[0], "ddim:3:schedule=cosine:eta=1"),
    *(("energy-mnist-pcd", precision, "langevin:9") for precision in OWN),
]


def service(files: Path, run: str, precision: str) -> Service:
    kind = load(FAMILIES["energy" if "energy" in run else "diffusion"].request)
    return loaded(JoiningService, files, kind, running(backend="openvino", precision=precision, budget=16))


def in_a_crowd(answering: Service, request: dict[str, Any]) -> list[Tensor]:
    """Ask for all images together, then for each among requests of other steps; return both."""
    rng, n = random.Random(0), request["num_samples"]
    together = ask(answering, request)
    shares = [request | {"num_samples": 1, "first_index": k} for k in range(n)]
    if "label" in request:
        shares = [share | {"label": share["label"][k]} for k, share in enumerate(shares)]
    others = [
        {"seed": 99 + k, "steps": rng.randint(1, 12), "num_samples": rng.randint(1, 7), "format": "npy"}
        for k in range(12)
    ]
    crowd = rng.sample(shares + others, n + len(others))
    replies = [reply for share, reply in zip(crowd, ask(answering, *crowd), strict=True) if share in shares]
    order = [share["first_index"] for share in crowd if share in shares]
    apart = torch.cat([torch.from_numpy(pixels(replies[order.index(k)])) for k in range(n)])
    return [torch.from_numpy(pixels(together[0])).permute(0, 3, 1, 2), apart.permute(0, 3, 1, 2)]


@pytest.mark.parametrize(("run", "precision", "text"), CASES)
def test_pictures_in_bulk_are_those_of_a_server_alone_and_in_a_crowd(
    run: str, precision: str, text: str, compiled: Callable[[str], Path]
) -> None:
    spec, model = served_model(ROOT / "weights" / run, CPU, precision, "openvino")
    setting, y = Setting.parse(text, spec.defaults), torch.arange(7) % max(1, len(spec.classes))
    ours = draw(model, spec, setting, y, seed=5, batch_size=4)
    keys = {"sampler": setting.sampler, "steps": setting.steps, "seed": 5, "num_samples": 7, "format": "npy"}
    if spec.classes:
        keys |= {"label": y.tolist(), "schedule": setting.schedule, "eta": setting.eta}
    for theirs in in_a_crowd(service(compiled(run), run, precision), keys):
        assert torch.equal(theirs, ours.int())


def test_a_run_that_openvino_does_not_compile_has_no_compiled_model() -> None:
    with pytest.raises(ValueError, match="is of the family gan; OpenVINO compiles diffusion and energy"):
        served_model(ROOT / "weights" / "gan-mnist", CPU, "fp32", "openvino")


def test_settings_of_a_picture_say_what_has_evaluated_it(compiled: Callable[[str], Path]) -> None:
    answering = service(compiled("diffusion-mnist"), "diffusion-mnist", "int8")
    (reply,) = ask(answering, {"steps": 1, "seed": 1, "format": "json"})
    assert '"backend": "openvino", "precision": "int8"' in reply.body.decode()
    (description,) = ask(answering, {"task": "describe"})
    assert '"backend": "openvino", "precision": "int8"' in description.body.decode()
