"""cuBLAS's workspace: scratch of matrix products, taken from torch's allocator and kept."""

from __future__ import annotations

from vramplan.engines.torch.attention_kernel import parse_capability
from vramplan.model import GPU, Band, Line, LineKind, Origin
from vramplan.units import MIB

#: torch's default cuBLAS workspace (pytorch#95668), and Hopper's
CUBLAS_BYTES = 8_519_680
CUBLAS_HOPPER_BYTES = 32 * MIB

CUBLAS_SOURCE = "torch's default cuBLAS workspace: pytorch#95668; 32 MiB on 9.x"
CUBLAS_NEW_SOURCE = (
    "32 MiB, as torch 2.14.1 takes on compute capability 10.0, 10.3 and 12.0, on cards that are "
    "not there; earlier builds took 8 (pytorch#95668, #175344, #182669)"
)


def cublas_band(compute_capability: str) -> tuple[Band, str]:
    """Return the bytes of cuBLAS's workspace, and where they come from."""
    major, _ = parse_capability(compute_capability)
    if major == 9:
        return Band.exactly(CUBLAS_HOPPER_BYTES), CUBLAS_SOURCE
    if major >= 10:
        band = Band(
            low_bytes=CUBLAS_BYTES,
            expected_bytes=CUBLAS_HOPPER_BYTES,
            high_bytes=CUBLAS_HOPPER_BYTES,
        )
        return band, CUBLAS_NEW_SOURCE
    return Band.exactly(CUBLAS_BYTES), CUBLAS_SOURCE


def cublas_line(compute_capability: str) -> Line:
    """Return the line of what cuBLAS keeps for the process."""
    band, source = cublas_band(compute_capability)
    is_witnessed = source is CUBLAS_NEW_SOURCE
    return Line(
        kind=LineKind.WORKSPACE,
        device=GPU,
        name="cuBLAS workspace",
        phase=None,
        component=None,
        band=band,
        origin=Origin.WITNESSED if is_witnessed else Origin.PUBLISHED,
        source=source,
    )
