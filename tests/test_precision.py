"""bf16 is chosen where the hardware multiplies it, on a CPU as on a GPU."""

import pytest
import torch

from genserve.precision import PRECISIONS, precision_for


@pytest.mark.parametrize(
    ("avx512", "amx", "expected"),
    [(False, False, "fp32"), (True, False, "bf16"), (False, True, "bf16"), (True, True, "bf16")],
)
def test_a_cpu_takes_bf16_if_it_has_instructions_for_it(
    avx512: bool, amx: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: amx)
    assert precision_for(torch.device("cpu")) == expected


@pytest.mark.parametrize("native", [False, True])
def test_a_gpu_that_emulates_bf16_takes_fp32(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return native or including_emulation

    monkeypatch.setattr("torch.cuda.is_bf16_supported", supported)
    assert precision_for(torch.device("cuda")) == ("bf16" if native else "fp32")


def test_the_choice_is_one_of_the_precisions_and_the_same_every_time() -> None:
    choices = {precision_for(torch.device("cpu")) for _ in range(3)}
    assert len(choices) == 1
    assert choices < PRECISIONS.keys()
