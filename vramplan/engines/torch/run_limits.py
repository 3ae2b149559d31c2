"""The least limits of a pipeline's run: what its memory beside the CUDA context must offer."""

from __future__ import annotations

from pathlib import Path

from vramplan import user_cache
from vramplan.engines.torch.allocator_slack import with_chance
from vramplan.engines.torch.cublas_workspace import cublas_band
from vramplan.engines.torch.job_tape import tape_at
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.replayed import at_most, conditions_at, has_defaults, result_key
from vramplan.engines.torch.result import LeastLimits
from vramplan.engines.torch.shipped_results import LIMITS, known_replay
from vramplan.engines.torch.tape_files import find_tape, tape_proof
from vramplan.model import Band, Settings
from vramplan.quick_dataclass import replace


def least_limits(
    pipeline: TorchPipeline, settings: Settings, compute_capability: str
) -> LeastLimits:
    """Return the least limits of a run: those of its replays where they are known, or found now.

    They are found without what an estimate shows beside them. Raises as `estimate_torch` does.
    """
    path = find_tape(pipeline)

    def find() -> LeastLimits:
        return _find_least_limits(pipeline, settings, compute_capability, path)

    is_kept = user_cache.in_use() is not None
    if not is_kept and not has_defaults(pipeline, settings):
        return find()
    key = result_key(path, pipeline, settings, compute_capability)
    known = known_replay(path, key, lambda: tape_proof(path))
    if known is None:
        return LIMITS.get(key, find, proof=lambda: tape_proof(path))
    return LeastLimits(
        low_bytes=known.low.least_limit_bytes,
        expected_bytes=known.expected.least_limit_bytes,
        high_bytes=known.high.least_limit_bytes,
        phase=known.expected.phase,
        component=known.expected.component,
    )


def _find_least_limits(
    pipeline: TorchPipeline, settings: Settings, compute_capability: str, path: Path
) -> LeastLimits:
    # a start that replays nothing needs none of it
    from vramplan.engines.torch.rehearsals import find_least_limits

    tape = tape_at(pipeline, settings, path)
    conditions = conditions_at(pipeline, settings, compute_capability, tape)
    low, expected, high = find_least_limits(
        tape,
        conditions,
        at_most(conditions, compute_capability),
        expandable_segments=settings.get("expandable_segments") == "on",
    )
    return LeastLimits(
        low_bytes=low.limit_bytes,
        expected_bytes=expected.limit_bytes,
        high_bytes=high.limit_bytes,
        phase=expected.phase,
        component=expected.component,
    )


def limits_band(low: int, expected: int, high: int, compute_capability: str) -> Band:
    """Return what a run needs beside the CUDA context, from its three least limits in bytes."""
    extra = cublas_band(compute_capability)[0]
    # least limits cross too: with more scratch the cache may be cut at better places
    packed = with_chance(
        Band(
            low_bytes=min(low, expected, high),
            expected_bytes=expected,
            high_bytes=max(low, expected, high),
        )
    )
    return replace(packed, high_bytes=packed.high_bytes + extra.high_bytes - extra.expected_bytes)
