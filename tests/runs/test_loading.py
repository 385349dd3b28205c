"""A loaded model answers as the trained one, and the same every time."""

from pathlib import Path

import pytest
import torch
from real_server import ROOT

from genserve.precision import PRECISIONS
from genserve.runs.directory import load_denoiser
from genserve.runs.export import export
from genserve.runs.loading import load_model

RUN = ROOT / "weights" / "diffusion-mnist"


@pytest.mark.parametrize("n", [1, 3, 16])
def test_torchscript_is_the_trained_denoiser(exported: Path, n: int) -> None:
    eager = load_denoiser(RUN)
    spec, scripted = load_model(exported, torch.device("cpu"))
    x = torch.randn(n, *spec.shape, generator=torch.Generator().manual_seed(0))
    sigma = torch.logspace(-2, 1.6, n)
    y = torch.arange(n) % (spec.no_class + 1)
    with torch.no_grad():
        torch.testing.assert_close(scripted(x, sigma, y), eager(x, sigma, y), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["energy-mnist", "energy-mnist-pcd", "energy-cifar10", "diffusion-mnist"])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_first_evaluation_of_a_loaded_model_is_every_later_one_s(
    name: str, precision: str, tmp_path: Path
) -> None:
    export(ROOT / "weights" / name, tmp_path)
    spec, model = load_model(tmp_path, torch.device("cpu"), PRECISIONS[precision])
    x = torch.randn(3, *spec.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        answers = [model(x, torch.ones(3), torch.zeros(3, dtype=torch.long)) for _ in range(3)]
    first, *later = [torch.cat([part.flatten() for part in answer]) for answer in answers]
    for answer in later:
        assert torch.equal(first, answer)
