"""The precision that a machine is fast at."""

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
        capabilities = torch.cpu.get_capabilities()
        fast = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return "bf16" if fast else "fp32"
