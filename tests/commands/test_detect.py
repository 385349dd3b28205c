"""How an energy tells the unfamiliar, with an energy whose order is known; ways of taking a Langevin step."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from real_server import ROOT

from genserve.commands import bench_step as STEPS
from genserve.commands import detect as PROGRAM
from genserve.data.pictures import DataConfig, load_images
from genserve.files import write_json
from genserve.images import normalise
from genserve.models.config import ModelConfig
from genserve.runs.directory import FORMAT
from genserve.runs.tensors import write_weights


@pytest.fixture(scope="module")
def energy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain energy of scikit-learn's digits that is the mean of the pixels, through three linear layers."""
    directory = tmp_path_factory.mktemp("runs") / "brightness"
    directory.mkdir()
    model = ModelConfig(
        family="energy", energy="plain", shape=(1, 8, 8), classes=(), mean=0.0, std=1.0,
        sigma_min=1.0, sigma_max=1.0, net={"channels": [4]},
    )  # fmt: skip
    network = model.build()
    for (
        name,
        p,
    ) in network.named_parameters():  # so bright pictures have more energy than dark ones
        torch.nn.init.constant_(p, 0.0 if name.endswith("bias") else 0.1)
    chains = {"step_size": 1.0, "noise_std": 0.1, "gradient_max": 1.0, "final_steps": 5}
    learnt = {"data": asdict(DataConfig(name="digits")), "langevin": chains}
    write_json(directory / "config.json", {"format": FORMAT, "model": asdict(model), "train": learnt})
    write_weights(directory / "weights.safetensors", network.state_dict())
    return directory


def detected(tmp_path: Path, *flags: str) -> dict[str, Any]:
    config = PROGRAM.command_line([*flags, "--output", str(tmp_path / "found.json"), "--data", str(tmp_path)])
    PROGRAM.main(config)
    return json.loads((tmp_path / "found.json").read_text())  # type: ignore[no-any-return]


def test_sets_are_ordered_by_their_energies(energy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    detections = detected(tmp_path, "--run", str(energy), "--n", "200")
    rows = {name: values[0] for name, values in detections["rows"].items()}
    assert detections["sigmas"] == [1.0]
    assert rows["inverted"] > 0.95  # these digits are dark, so their inverses are bright
    for name in ("rotated", "shifted", "shuffled"):
        assert rows[name] < 0.8  # nearly as bright as they were
    output = capsys.readouterr().out
    assert "AUROC" in output
    assert all(name in output for name in rows if name != "held-out")
    assert not {"CIFAR-10", "Fashion-MNIST"} & rows.keys()  # they are not below --data


def test_the_unfamiliar_is_what_its_name_says():
    x = normalise(load_images(DataConfig(name="digits"), "test").x[:50])
    sets = PROGRAM.unfamiliar(x, torch.Generator().manual_seed(0))
    assert all(other.shape == x.shape and other.abs().max() <= 1 for other in sets.values())
    assert torch.equal(sets["inverted"], -x)
    assert torch.equal(sets["rotated"].rot90(-1, (2, 3)), x)
    for name in ("shuffled", "shifted"):  # the same pixels in other places
        assert torch.equal(sets[name].flatten(1).sort().values, x.flatten(1).sort().values)
        assert not torch.equal(sets[name], x)
    assert (sets["faint noise"] - x).std() < 0.3 < sets["uniform noise"].std()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--n", "1"], "n must be at least 2"),
        (["--sigmas", "0.1", "-1"], "sigmas must be above 0"),
        (["--run", str(ROOT / "weights/diffusion-mnist")], "of the family diffusion"),
        (["--run", "nowhere"], "no run directory"),
    ],
)
def test_what_is_wrong_is_said(flags: list[str], message: str, tmp_path: Path):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        detected(tmp_path, *flags)


def test_every_way_of_taking_a_step_sees_the_same_gradient(monkeypatch: pytest.MonkeyPatch):
    """What the benchmark compares does the same work."""
    point = (torch.linspace(-1, 1, 2 * 784).view(2, 1, 28, 28), torch.full((2,), 0.5), torch.tensor([3, 10]))
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    methods = STEPS.methods(ROOT / "weights/energy-mnist", torch.float32, point)
    energies = methods.pop("forward")(*point)
    assert energies.shape == (2,)
    eager = methods.pop("eager")(*point)
    assert (eager - point[0]).abs().max() > 0.01
    for name, method in methods.items():
        torch.testing.assert_close(method(*point), eager, rtol=1e-3, atol=1e-3, msg=name)
