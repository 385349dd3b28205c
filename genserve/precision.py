"""Choose the precision of a network: bf16 if the hardware multiplies it, else fp32."""

import torch

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def precision_for(device: torch.device) -> str:
    """Return "bf16" if the device multiplies it in hardware, else "fp32".

    The answer depends on nothing that changes on a machine, so that a worker draws the same pictures after a
    restart. A CPU that only emulates bf16 is several times slower with it.
    """
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if fast else "fp32"
