"""Everything there is to say about one run beside its estimate."""

from __future__ import annotations

from vramplan.compare.events import EventComparison
from vramplan.compare.pair import Pair, worst_of
from vramplan.compare.rows import (
    BufferRow,
    ComponentRow,
    PhaseRow,
    buffer_rows,
    component_rows,
    phase_rows,
)
from vramplan.compare.waterfall import Waterfall, draw_waterfall, observe_run
from vramplan.measurement.run import Run
from vramplan.model import Estimate, LineKind
from vramplan.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """An estimate beside a run; `peak_` pairs are the run's highest, cold and warm together.

    `events` is there where the allocator's own events were asked for.
    """

    estimate: Estimate
    run: Run
    components: tuple[ComponentRow, ...]
    phases: tuple[PhaseRow, ...]
    buffers: tuple[BufferRow, ...]
    peak_allocated: Pair
    peak_reserved: Pair
    peak_process: Pair
    waterfall: Waterfall | None
    events: EventComparison | None = None

    @property
    def worst_percent(self) -> float | None:
        """The largest residual that a tolerance is held against: peaks, phases and buffers."""
        return worst_of(
            [
                self.peak_allocated,
                self.peak_reserved,
                self.peak_process,
                *(pair for row in self.phases for pair in row.pairs),
                *(row.size for row in self.buffers),
            ]
        )


def compare_run(estimate: Estimate, run: Run, *, smi_used_bytes: int | None = None) -> Comparison:
    """Return `run` beside `estimate`, which must be at the run's settings."""
    phases = phase_rows(estimate, run)
    seen = observe_run(run, smi_used_bytes=smi_used_bytes)
    torch = [one.torch for one in run.stretches if one.torch is not None]
    process = [one.process_peak_bytes for one in run.stretches]
    known = [size for size in process if size is not None]
    reserved = estimate.peak.reserved_bytes
    return Comparison(
        estimate=estimate,
        run=run,
        components=component_rows(estimate, run),
        phases=phases,
        buffers=buffer_rows(estimate, run),
        peak_allocated=Pair(
            estimate_bytes=estimate.peak.allocated_bytes,
            measured_bytes=max((one.allocated_peak_bytes for one in torch), default=None),
        ),
        peak_reserved=Pair(
            estimate_bytes=reserved,
            measured_bytes=max((one.reserved_peak_bytes for one in torch), default=None),
        ),
        peak_process=Pair(
            estimate_bytes=reserved + estimate.bytes_of(LineKind.CUDA_CONTEXT),
            measured_bytes=max(known, default=None),
        ),
        waterfall=draw_waterfall(estimate, seen) if seen is not None else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """How a figure comes about that a card showed; `sentences` say what was looked at.

    Without an estimate it is only said whose it is.
    """

    estimate: Estimate | None
    waterfall: Waterfall
    sentences: tuple[str, ...]

    @property
    def worst_percent(self) -> float:
        """What is unaccounted, in per cent of what is shown: a tolerance is held against it."""
        return 100 * abs(self.waterfall.unaccounted_bytes) / max(self.waterfall.shown_bytes, 1)
