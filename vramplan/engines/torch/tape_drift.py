"""What another recording of a tape changes of its figures, at a pipeline's own settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vramplan.budget.drift import Drift
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.rehearsals import find_least_limits, rehearse_once
from vramplan.engines.torch.replayed import EACH_KERNEL, at_most, conditions_at, holds_at
from vramplan.engines.torch.tape.contents import Tape
from vramplan.engines.torch.tape.format import parse_tape

_WHAT = ("allocated peak", "reserved peak", "least limit")


def tape_drift(pipeline: TorchPipeline, known: str, made: str) -> Iterator[Drift]:
    """Yield each figure as a known tape has it and as one made now has it.

    On an architecture of each kind of kernel that one of them was recorded for. Raises TapeError
    for a text that is no tape.
    """
    before, now = parse_tape(known, "the tape"), parse_tape(made, "what is recorded now")
    for capability in EACH_KERNEL:
        figures = [_figures(pipeline, tape, capability) for tape in (before, now)]
        if any(figures):
            for what in _WHAT:
                yield Drift(
                    compute_capability=capability,
                    what=what,
                    before_bytes=figures[0].get(what),
                    now_bytes=figures[1].get(what),
                )


def _figures(pipeline: TorchPipeline, tape: Tape, capability: str) -> Mapping[str, int]:
    """Return a tape's figures; none where it has no recording for an architecture."""
    settings = pipeline.defaults
    if not holds_at(pipeline, settings, capability, tape):
        return {}
    conditions = conditions_at(pipeline, settings, capability, tape)
    is_expandable = settings.get("expandable_segments") == "on"
    trace = rehearse_once(tape, conditions, expandable_segments=is_expandable).trace
    _, least, _ = find_least_limits(
        tape, conditions, at_most(conditions, capability), expandable_segments=is_expandable
    )
    sizes = trace.allocated_peak_bytes, trace.reserved_peak_bytes, least.limit_bytes
    return dict(zip(_WHAT, sizes, strict=True))
