"""What a compute capability decides: the attention kernel torch picks for it.

Source: pytorch 2.14, aten/src/ATen/native/transformers/cuda/sdp_utils.cpp:
`check_prefer_cudnn_attention` (9.x and 10.x with cuDNN above 9.15), `check_sm_version` (flash from
8.0 on, memory-efficient from 5.0 on), `use_mem_efficient_attention` (bf16 from 8.0 on).
"""

from __future__ import annotations

from functools import lru_cache

from vramplan.errors import UsageError

#: what an architecture may prefer
KERNELS = ("flash", "cudnn", "efficient", "math")
#: the last of them keeps its scores, the others do not
*FUSED, PLAIN = KERNELS


@lru_cache(maxsize=64)  # all there are; a sweep asks for each of them thousands of times
def parse_capability(text: str) -> tuple[int, int]:
    """Return (major, minor) of a compute capability such as ``8.6``."""
    major, dot, minor = text.partition(".")
    if not (_is_number(major) and _is_number(minor) and dot):
        raise UsageError(f"not a compute capability: {text!r}", hint="such as 8.6")
    return int(major), int(minor)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 5


def attention_kernel(compute_capability: str, attention: str, dtype: str) -> str:
    """Return the best kernel a scaled-dot-product attention gets: cudnn, flash, efficient or math.

    An operation that the best kernel cannot take falls through to the next one; the recordings
    hold which.
    """
    if attention == "math":
        return "math"
    major, _ = parse_capability(compute_capability)
    if dtype == "bf16" and major < 8:  # no fused kernel takes it there
        return "math"
    if dtype == "fp32" or major < 8:  # flash and cuDNN take half precision only, flash from 8.0 on
        return "efficient" if major >= 5 else "math"
    return "cudnn" if major in (9, 10) else "flash"
