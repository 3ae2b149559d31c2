"""What a measured process finds in its environment: the allocator's and cuBLAS's settings."""

from __future__ import annotations

from vramplan.model import Settings
from vramplan.runner.task import MACHINE

#: cuBLAS's workspace where the architecture is not Hopper: 2 of 4096 KiB, 8 of 16 KiB.
#: Source: 8,519,680 bytes by default (pytorch#95668), 32 MiB on 9.x (pytorch#175344)
_SMALL_WORKSPACE = ":4096:2:16:8"


def torch_environment(settings: Settings, kernels: str) -> dict[str, str]:
    """Return the variables that make torch do what `settings` and an architecture ask."""
    found = {}
    if kernels != MACHINE and not kernels.startswith("9."):
        found["CUBLAS_WORKSPACE_CONFIG"] = _SMALL_WORKSPACE
    if settings.get("expandable_segments") == "on":
        found["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
        found["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"  # its name before torch 2.9
    return found
