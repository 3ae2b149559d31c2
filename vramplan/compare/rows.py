"""Estimate and measurement of one run, row by row: components, phases, an engine's buffers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vramplan.compare.pair import Pair
from vramplan.engine_buffer import ENGINE_NAMES, in_our_words
from vramplan.measurement.run import PhaseEnd, Run, Stretch
from vramplan.model import Estimate, LineKind, buffer_bytes
from vramplan.quick_dataclass import dataclass

#: a phase, and a component at work in it
Place = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentRow:
    """A component's weights, counted and as the counter rose when they were loaded."""

    name: str
    parameters: int
    weights: Pair


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseRow:
    """Peaks while one component works in one phase, of the whole process.

    `process` is the estimate's reserved and CUDA context against NVML's figure for the process;
    `device_bytes` is NVML's for the card, which has no estimate: others use it too. `smi_` are
    nvidia-smi's figures for the card and the process, of the end of the phase. The first run in a
    process is cold; `warm_` is the second.
    """

    phase: str
    component: str
    allocated: Pair
    reserved: Pair
    process: Pair
    device_bytes: int | None
    smi_bytes: int | None
    smi_process_bytes: int | None
    warm_allocated_bytes: int | None
    warm_reserved_bytes: int | None

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """What can be held to a tolerance."""
        return (self.allocated, self.reserved, self.process)


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferRow:
    """A buffer of a ggml engine: the estimate's, and what the engine said it allocated.

    `name` is what engines call it.
    """

    kind: LineKind
    name: str
    is_on_host: bool
    size: Pair


def component_rows(estimate: Estimate, run: Run) -> tuple[ComponentRow, ...]:
    """Return a row for each component that was loaded, a component's parts together.

    A run's ``vae`` is the estimate's ``vae.encoder``, ``vae.decoder`` and so on.
    """
    return tuple(
        ComponentRow(
            name=part.name,
            parameters=part.parameters,
            weights=Pair(
                estimate_bytes=_estimated_weights(estimate, part.name, len(run.components)),
                measured_bytes=part.allocated_bytes,
            ),
        )
        for part in run.components
    )


def _estimated_weights(estimate: Estimate, name: str, loaded: int) -> int | None:
    parts = [
        part.weights_bytes
        for part in estimate.components
        if loaded == 1 or part.name == name or part.name.startswith(f"{name}.")
    ]
    return sum(parts) if parts else None


def phase_rows(estimate: Estimate, run: Run) -> tuple[PhaseRow, ...]:
    """Return a row for each component in each phase, in the order of the run."""
    cold = _by_place(one for one in run.stretches if one.turn != "warm")
    warm = _by_place(one for one in run.stretches if one.turn == "warm")
    planned = _planned(estimate)
    context = estimate.bytes_of(LineKind.CUDA_CONTEXT)
    places = list(dict.fromkeys([*cold, *planned])) if cold else list(planned)
    return tuple(
        _phase_row(
            place,
            planned.get(place),
            cold.get(place, []),
            warm.get(place, []),
            [one for one in run.phase_ends if _ends_in(one, place)],
            context,
        )
        for place in places
    )


def _ends_in(end: PhaseEnd, place: Place) -> bool:
    """Return whether a phase's end is that of a place: every component's that worked in it."""
    return end.phase == place[0] and end.component in ("", place[1])


def _by_place(stretches: Iterable[Stretch]) -> dict[Place, list[Stretch]]:
    found: dict[Place, list[Stretch]] = {}
    for one in stretches:
        found.setdefault((one.phase, one.component), []).append(one)
    return found


def _planned(estimate: Estimate) -> dict[Place, tuple[int, int]]:
    """Return the estimate's highest allocated and reserved bytes in each place of the timeline."""
    found: dict[Place, tuple[int, int]] = {}
    for point in estimate.timeline:
        place = (point.phase, point.component)
        allocated, reserved = found.get(place, (0, 0))
        found[place] = (
            max(allocated, point.allocated_bytes),
            max(reserved, point.reserved_bytes),
        )
    return found


def _phase_row(
    place: Place,
    planned: tuple[int, int] | None,
    cold: list[Stretch],
    warm: list[Stretch],
    ends: list[PhaseEnd],
    context: int,
) -> PhaseRow:
    return PhaseRow(
        phase=place[0],
        component=place[1],
        allocated=Pair(
            estimate_bytes=planned[0] if planned else None, measured_bytes=_allocated(cold)
        ),
        reserved=Pair(
            estimate_bytes=planned[1] if planned else None, measured_bytes=_reserved(cold)
        ),
        process=Pair(
            estimate_bytes=planned[1] + context if planned else None,
            measured_bytes=_most(one.process_peak_bytes for one in cold),
        ),
        device_bytes=_most(one.device_peak_bytes for one in cold),
        smi_bytes=_most(one.smi_used_bytes for one in ends),
        smi_process_bytes=_most(one.smi_process_bytes for one in ends),
        warm_allocated_bytes=_allocated(warm),
        warm_reserved_bytes=_reserved(warm),
    )


def _allocated(stretches: Iterable[Stretch]) -> int | None:
    return _most(one.torch.allocated_peak_bytes for one in stretches if one.torch)


def _reserved(stretches: Iterable[Stretch]) -> int | None:
    return _most(one.torch.reserved_peak_bytes for one in stretches if one.torch)


def _most(sizes: Iterable[int | None]) -> int | None:
    return max((size for size in sizes if size is not None), default=None)


def buffer_rows(estimate: Estimate, run: Run) -> tuple[BufferRow, ...]:
    """Return a row for each kind of buffer of a ggml engine, on the GPU and on the host."""
    if not (estimate.buffers and run.buffers):
        return ()
    return tuple(_buffer_rows(estimate, run))


def _buffer_rows(estimate: Estimate, run: Run) -> Iterator[BufferRow]:
    printed = in_our_words(run.buffers)
    for name, (kind, component) in ENGINE_NAMES.items():
        for on_host in (False, True):
            told = [
                one.size_bytes
                for one in printed
                if (one.kind, one.component, one.device.is_host) == (kind, component, on_host)
            ]
            ours = buffer_bytes(estimate.buffers, kind, on_host=on_host, component=component)
            if told or ours:
                size = Pair(estimate_bytes=ours, measured_bytes=sum(told) if told else None)
                yield BufferRow(kind=kind, name=name, is_on_host=on_host, size=size)
