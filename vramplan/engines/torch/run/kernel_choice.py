"""Which attention kernels a process may use, so that a large card does what a smaller one would.

Hopper under torch >= 2.11 prefers cuDNN's kernel, GeForce cards take flash or memory-efficient,
those below compute capability 8.0 have no flash.
"""

from __future__ import annotations

from typing import Any

import torch

from vramplan.runner.task import MACHINE


def allow_kernels(kernels: str, *, wants_math: bool) -> None:
    """Switch off the attention kernels that an architecture would not take."""
    if wants_math:
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_mem_efficient_sdp(False)
        torch.backends.cuda.enable_cudnn_sdp(False)
        return
    if kernels == MACHINE:
        return
    major = int(kernels.partition(".")[0])
    torch.backends.cuda.enable_cudnn_sdp(major in (9, 10))
    torch.backends.cuda.enable_flash_sdp(major >= 8)


def kernel_facts() -> dict[str, str]:
    """Return what this process may use, in words."""
    cuda: Any = torch.backends.cuda
    allowed = {
        "flash": cuda.flash_sdp_enabled(),
        "efficient": cuda.mem_efficient_sdp_enabled(),
        "cudnn": cuda.cudnn_sdp_enabled(),
        "math": cuda.math_sdp_enabled(),
    }
    return {"attention_kernels": ", ".join(name for name, is_on in allowed.items() if is_on)}
