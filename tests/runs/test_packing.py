"""A fast model draws the same pictures: packed weights, low precision, the same bits in every batch."""

import logging
from pathlib import Path

import pytest
import torch
from real_server import ROOT
from torch import Tensor

from genserve.precision import PRECISIONS, precision_for
from genserve.runs import packing
from genserve.runs.directory import load_denoiser
from genserve.runs.loading import load_model
from genserve.runs.packing import PACKED, packed

RUN = ROOT / "weights" / "diffusion-mnist"
CPU = torch.device("cpu")


def question(n: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 1, 28, 28, generator=generator)
    return x, torch.rand(n, generator=generator) * 3 + 0.1, torch.arange(n) % 10


@torch.no_grad()
def test_the_loaded_model_is_the_trained_one(exported: Path) -> None:
    expected = load_denoiser(RUN)(*question(5))
    for name, error in (("fp32", 1e-5), ("bf16", 0.05)):
        _, model = load_model(exported, CPU, PRECISIONS[name])
        answer = model(*question(5))
        assert answer.dtype == torch.float32
        torch.testing.assert_close(answer, expected, rtol=0, atol=error)


@torch.no_grad()
@pytest.mark.parametrize("precision", sorted({"fp32", precision_for(CPU)}))  # bf16 where a server chooses it
def test_an_answer_does_not_depend_on_its_batch(exported: Path, precision: str) -> None:
    _, model = load_model(exported, CPU, PRECISIONS[precision])
    columns = question(33)
    together = model(*columns)
    for n in (1, 2, 3, 5, 8, 16, 32):
        apart = torch.cat([model(*share) for share in zip(*(t.split(n) for t in columns), strict=True)])
        # in bf16 not by one bit
        torch.testing.assert_close(apart, together, rtol=0, atol=1e-5 if precision == "fp32" else 0)


@torch.no_grad()
def test_packing_changes_no_bit_and_warns_if_it_fails(
    exported: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _, model = load_model(exported, CPU)
    with monkeypatch.context() as patch:
        patch.setattr(packing, "PACKED", PACKED.replace("_convolution_pointwise", "_no_such_thing"))
        with caplog.at_level(logging.WARNING):
            _, plain = load_model(exported, CPU)
    assert isinstance(plain, torch.jit.ScriptModule)
    assert not isinstance(model, torch.jit.ScriptModule)
    assert "weights are not packed" in caplog.text
    assert torch.equal(model(*question(16)), plain(*question(16)))
    monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: False)
    assert packed(plain) is plain
