"""The KV cache, where a model generates with another than the one that grows.

A tape's run has the growing cache among its activations. Another one is taken into its place, phase
by phase: what the growing one has there is taken off, and what the other holds is put in. What a
layer works with then was not recorded, so activations are `assumed`; the cache's own bytes are as
sure as `held_cache` says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from vramplan.engines.torch.attention_kernel import attention_kernel
from vramplan.engines.torch.held_cache import CacheLayer, Held, held, how_sure
from vramplan.model import Band, Estimate, Line, LineKind, Origin, PhaseUse, Settings
from vramplan.quick_dataclass import dataclass, replace
from vramplan.setting_values import CACHE_CONFIG, cache_config_of
from vramplan.units import MIB

#: tensors of another size lie otherwise in torch's segments: one more of those that 1 to 10 MiB
#: share (c10/cuda/CUDACachingAllocator.cpp, kLargeBuffer)
_SEGMENT = 20 * MIB
_WHY = (
    "less what the growing cache has there, which is taken to be all of it but for one layer's; "
    "what a layer works with was not recorded with this one"
)
_COMPILED = (
    "generate() compiles a model with a static cache on CUDA (CUDA graphs keep memory of their "
    "own): this is the budget with disable_compile=True"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Exchanged:
    """A phase with the other cache: what it holds, and what is at work beside."""

    phase: PhaseUse
    cache: Band
    at_work: Band
    was_at_work: int  # with the growing cache, that included

    @property
    def whole(self) -> Band:
        """The cache and what is at work."""
        return self.cache + self.at_work

    @property
    def more(self) -> int:
        """What is live more than with the growing cache, as expected; less than nothing is less."""
        return self.whole.expected_bytes - self.was_at_work


def with_cache(found: Estimate, layers: Sequence[CacheLayer], settings: Settings) -> Estimate:
    """Return the budget of a run at `settings` from that of the same run with a growing cache."""
    kind = str(settings["cache_implementation"])
    kernel = attention_kernel(found.compute_capability, "sdpa", str(settings.get("dtype", "fp32")))
    holds = held(layers, settings, kernel)
    phases = [_exchanged(found, phase, holds) for phase in found.phases]
    peak = max(phases, key=lambda one: one.whole.expected_bytes)
    at_work = _spread([one.whole for one in phases], peak)
    lines = tuple(_lines(found, peak, at_work, settings))
    before, after = _sum(found.lines), _sum(lines)
    more = after.expected_bytes - before.expected_bytes
    place = {"phase": peak.phase.name, "component": peak.phase.component}
    moved = {one.phase.name: one.more for one in phases}
    return replace(
        found,
        settings=settings,
        lines=lines,
        phases=tuple(_moved(phase, moved[phase.name]) for phase in found.phases),
        peak=replace(
            found.peak,
            allocated_bytes=found.peak.allocated_bytes + more,
            reserved_bytes=found.peak.reserved_bytes + more,
            device=_shifted(found.peak.device, before, after),
            **place,
        ),
        need=replace(found.need, band=_shifted(found.need.band, before, after), **place),
        timeline=tuple(
            replace(
                point,
                allocated_bytes=max(0, point.allocated_bytes + moved.get(point.phase, 0)),
                reserved_bytes=max(0, point.reserved_bytes + moved.get(point.phase, 0)),
            )
            for point in found.timeline
        ),
        notes=(*found.notes, _COMPILED) if "static" in kind else found.notes,
    )


def _exchanged(found: Estimate, phase: PhaseUse, holds: Mapping[str, Held]) -> _Exchanged:
    """Return a phase whose growing cache is exchanged for the other one."""
    work = _activations(found).band
    # lines are those of the peak; another phase has so much less at work
    behind = max(one.allocated_peak_bytes for one in found.phases) - phase.allocated_peak_bytes
    low, expected, high = (
        max(0, size - behind) for size in (work.low_bytes, work.expected_bytes, work.high_bytes)
    )
    there = holds.get(phase.name)
    if there is None:
        band = Band(low_bytes=low, expected_bytes=expected, high_bytes=high)
        return _Exchanged(phase=phase, cache=Band.exactly(0), at_work=band, was_at_work=expected)
    usual, most = there.work
    rest = max(0, expected - there.grown)
    # at its peak the growing cache may lack a layer, or have a second copy of one layer's keys
    beside = max(2 * there.layer_keys, most) + _SEGMENT
    at_work = Band(
        low_bytes=min(rest, max(0, low - there.grown - there.layer_keys)),
        expected_bytes=max(rest, usual),
        high_bytes=max(rest, usual, high - there.grown + beside),
    )
    return _Exchanged(phase=phase, cache=there.cache, at_work=at_work, was_at_work=expected)


def _spread(wholes: Sequence[Band], peak: _Exchanged) -> Band:
    """Return what is at work at the peak, so wide that cache and work hold every phase's band."""
    low, high = (max(getattr(one, end) for one in wholes) for end in ("low_bytes", "high_bytes"))
    expected = peak.at_work.expected_bytes
    return Band(
        low_bytes=max(0, min(expected, low - peak.cache.low_bytes)),
        expected_bytes=expected,
        high_bytes=max(expected, high - peak.cache.high_bytes),
    )


def _lines(found: Estimate, peak: _Exchanged, at_work: Band, settings: Settings) -> Iterator[Line]:
    kind = str(settings["cache_implementation"])
    origin, source = how_sure(kind, cache_config_of(settings.get(CACHE_CONFIG)))
    exchanged = _activations(found)
    for line in found.lines:
        if line is not exchanged:
            yield line
            continue
        changed = replace(
            line,
            phase=peak.phase.name,
            component=peak.phase.component,
            band=peak.cache,
            kind=LineKind.KV_CACHE,
            name="KV cache",
            origin=origin,
            source=source,
        )
        if peak.cache.high_bytes:
            yield changed
        yield replace(
            changed,
            band=at_work,
            kind=line.kind,
            name=line.name,
            origin=Origin.ASSUMED,
            source=f"{line.source}, {_WHY}",
        )


def _activations(found: Estimate) -> Line:
    return next(line for line in found.lines if line.kind is LineKind.ACTIVATIONS)


def _moved(phase: PhaseUse, more: int) -> PhaseUse:
    return replace(
        phase,
        allocated_peak_bytes=max(0, phase.allocated_peak_bytes + more),
        reserved_peak_bytes=max(0, phase.reserved_peak_bytes + more),
        device_used_bytes=max(0, phase.device_used_bytes + more),
    )


def _sum(lines: Iterable[Line]) -> Band:
    return sum((line.band for line in lines), Band.exactly(0))


def _shifted(band: Band, before: Band, after: Band) -> Band:
    """Return a band that is made of lines, with what they add up to now."""
    low, expected, high = (
        getattr(band, end) + getattr(after, end) - getattr(before, end)
        for end in ("low_bytes", "expected_bytes", "high_bytes")
    )
    return Band(
        low_bytes=max(0, min(low, expected)),
        expected_bytes=max(0, expected),
        high_bytes=max(0, expected, high),
    )
