"""cuBLAS's workspace: scratch of matrix products, taken from torch's allocator and kept."""

from __future__ import annotations

from vramplan.engines.torch.attention_kernel import parse_capability
from vramplan.model import GPU, Band, Line, LineKind, Origin
from vramplan.units import MIB

#: torch's default cuBLAS workspace (pytorch#95668), and Hopper's
CUBLAS_BYTES = 8_519_680
CUBLAS_HOPPER_BYTES = 32 * MIB

CUBLAS_SOURCE = "torch's default cuBLAS workspace: pytorch#95668; 32 MiB on 9.x"
CUBLAS_NEW_SOURCE = f"{CUBLAS_SOURCE}, and on {{}} in some 2026 builds (pytorch#175344, #182669)"


def cublas_band(compute_capability: str) -> tuple[Band, str]:
    """Return the bytes of cuBLAS's workspace, and where they come from."""
    major, _ = parse_capability(compute_capability)
    if major == 9:
        return Band.exactly(CUBLAS_HOPPER_BYTES), CUBLAS_SOURCE
    if major in (10, 12):
        band = Band(
            low_bytes=CUBLAS_BYTES, expected_bytes=CUBLAS_BYTES, high_bytes=CUBLAS_HOPPER_BYTES
        )
        return band, CUBLAS_NEW_SOURCE.format(f"{major}.x")
    return Band.exactly(CUBLAS_BYTES), CUBLAS_SOURCE


def cublas_line(compute_capability: str) -> Line:
    """Return the line of what cuBLAS keeps for the process."""
    band, source = cublas_band(compute_capability)
    return Line(
        kind=LineKind.WORKSPACE,
        device=GPU,
        name="cuBLAS workspace",
        phase=None,
        component=None,
        band=band,
        origin=Origin.PUBLISHED,
        source=source,
    )
