"""The precision in which a network computes: bf16 where the hardware multiplies it, else fp32."""

import torch

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def precision_for(device: torch.device) -> str:
    """Return "bf16" where the device multiplies it in hardware, else "fp32".

    A matter of the machine and of nothing that changes on it: a worker that starts again draws the same
    pictures. A CPU that only emulates bf16 is several times slower in it.
    """
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if fast else "fp32"
