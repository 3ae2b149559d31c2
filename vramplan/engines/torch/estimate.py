"""The budget of a pipeline that runs in torch, line by line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from vramplan.budget.cuda_context import context_band, context_line
from vramplan.dtypes import ELEMENT_BYTES
from vramplan.engines.torch.diffusers_offload import STAYS_ON_DEVICE
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.replayed import (
    Replayed,
    Scenario,
    conditions_at,
    replay_run,
    result_key,
)
from vramplan.engines.torch.shipped_results import remembered
from vramplan.engines.torch.workspace import convolution_scratch, cublas_band
from vramplan.errors import TapeError
from vramplan.model import (
    GPU,
    Band,
    Card,
    Component,
    Estimate,
    Line,
    LineKind,
    Need,
    Origin,
    Peak,
    PhaseUse,
    Settings,
    TimelinePoint,
)
from vramplan.settings import SPILLING_PLATFORMS
from vramplan.units import MIB, format_size

if TYPE_CHECKING:
    from vramplan.engines.torch.tape.contents import Tape

#: one segment of torch's large pool (c10/core/AllocatorConfig.h). Which request opens one hangs on
#: the size of every request before it: other scratch, or an image a few pixels larger, moves it. On
#: the way from 64 to 656 pixels under model offload SD 1.5's least limit falls by up to 20 MiB
_SEGMENT_BYTES = 20 * MIB

_SLACK_SOURCE = "reserved less allocated at the peak: blocks torch keeps for reuse (replayed)"


def estimate_torch(pipeline: TorchPipeline, settings: Settings, card: Card) -> Estimate:
    """Return the budget of a torch pipeline on a card, from its tape.

    Raises TapeError where there is no tape, or none that holds for these settings.
    """
    path = find_tape(pipeline)
    result = replayed(pipeline, settings, card.compute_capability, path)
    return _Budget(pipeline, settings, card, result).estimate()


def find_tape(pipeline: TorchPipeline) -> Path:
    """Return the path of a pipeline's tape; raises TapeError where none of its folders has it."""
    name, folders = pipeline.tape or pipeline.name, pipeline.folders
    beside = Path(pipeline.path).parent / f"{name}.json"
    for path in (*(folder / "tapes" / f"{name}.json" for folder in folders), beside):
        if path.is_file():
            return path
    raise TapeError(
        f"{pipeline.name}: no tape {name}.json in {', '.join(str(f / 'tapes') for f in folders)}",
        hint=f"record it with: vramplan record {pipeline.name}",
    )


def open_tape(path: Path) -> Tape:
    """Return the tape in `path`, read once for as long as the file stays as it is."""
    state = path.stat()
    return _open_tape(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=4)
def _open_tape(path: Path, _size: int, _changed: int) -> Tape:
    from vramplan.engines.torch.tape.format import read_tape  # a shipped result needs no tape

    return read_tape(path)


def replayed(
    pipeline: TorchPipeline, settings: Settings, compute_capability: str, path: Path
) -> Replayed:
    """Return the replay's result at these settings, shipped or made now."""
    key = result_key(path, pipeline, settings, compute_capability)

    def replay() -> Replayed:
        tape = open_tape(path)
        conditions = conditions_at(pipeline, settings, compute_capability, tape)
        expandable = settings.get("expandable_segments") == "on"
        return replay_run(tape, conditions, compute_capability, expandable_segments=expandable)

    return remembered(path.parent, key, replay)


class _Budget:
    """One replayed run, read as a budget."""

    def __init__(
        self, pipeline: TorchPipeline, settings: Settings, card: Card, result: Replayed
    ) -> None:
        self.pipeline = pipeline
        self.settings = settings
        self.card = card
        self.compute_capability = card.compute_capability
        self.result = result
        self.peak_mark = max(result.marks, key=lambda mark: mark.allocated_peak_bytes)

    def estimate(self) -> Estimate:
        """Return the whole budget."""
        lines = tuple(self._lines())
        device = sum((line.band for line in lines[1:]), lines[0].band)
        expected = self.result.expected
        return Estimate(
            pipeline=self.pipeline.name,
            title=self.pipeline.title,
            runtime=self.pipeline.runtime,
            settings=self.settings,
            compute_capability=self.compute_capability,
            components=tuple(self._components()),
            phases=tuple(self._phases()),
            lines=lines,
            peak=Peak(
                phase=self.peak_mark.phase,
                component=self.peak_mark.component,
                allocated_bytes=expected.allocated_peak_bytes,
                reserved_bytes=expected.reserved_peak_bytes,
                device=device,
            ),
            need=self._need(device),
            timeline=tuple(self._timeline()),
            notes=tuple(self._notes()),
        )

    # ------------------------------------------------------------------ lines
    def _lines(self) -> Iterator[Line]:
        """Yield the lines of the peak; low, expected and high each add up to the device's."""
        peak, result = self.peak_mark, self.result
        scenarios = (result.low, result.expected, result.high)
        # more scratch can mean less live memory: blocks are cut elsewhere, and torch counts a block
        # whole that is up to 1 MiB larger than what was asked for
        floor = min(scenario.allocated_peak_bytes for scenario in scenarios)
        most = max(scenario.allocated_peak_bytes for scenario in scenarios)
        resident = dict(peak.weights)
        yield from self._weights(resident)
        cublas, cublas_source = cublas_band(self.compute_capability)
        held = sum(resident.values())
        activations = floor - held - cublas.expected_bytes
        for line in self._training():
            activations -= line.band.expected_bytes
            yield line
        yield Line(
            kind=LineKind.ACTIVATIONS,
            device=GPU,
            name=self._activations_name(),
            phase=peak.phase,
            component=peak.component,
            band=Band.exactly(max(0, activations)),
            origin=Origin.REPLAYED,
            source=f"tape {self.pipeline.tape}, most that is live at once",
        )
        scratch = convolution_scratch(self.compute_capability, self._peak_width(resident))
        if most > floor:
            yield Line(
                kind=LineKind.WORKSPACE,
                device=GPU,
                name="convolution workspace",
                phase=peak.phase,
                component=peak.component,
                band=Band(
                    low_bytes=0,
                    expected_bytes=result.expected.allocated_peak_bytes - floor,
                    high_bytes=most - floor,
                ),
                origin=scratch.origin,
                source=scratch.source,
            )
        yield Line(
            kind=LineKind.WORKSPACE,
            device=GPU,
            name="cuBLAS workspace",
            phase=None,
            component=None,
            band=cublas,
            origin=Origin.PUBLISHED,
            source=cublas_source,
        )
        slacks = sorted(map(_slack, scenarios))
        yield Line(
            kind=LineKind.ALLOCATOR_SLACK,
            device=GPU,
            name="allocator slack",
            phase=peak.phase,
            component=None,
            band=_with_chance(
                Band(
                    low_bytes=slacks[0],
                    expected_bytes=_slack(result.expected),
                    high_bytes=slacks[-1],
                )
            ),
            origin=Origin.REPLAYED,
            source=_SLACK_SOURCE,
        )
        yield context_line(self.card)

    def _peak_width(self, resident: Mapping[str, int]) -> int:
        """Return the element size in bytes in which the component of the peak runs."""
        element_bytes = ELEMENT_BYTES[str(self.settings.get("dtype", "fp32"))]
        name = self.peak_mark.component.partition(".")[0]
        loaded = sum(part.weights_bytes for part in self.result.parts if part.component == name)
        is_wider = resident.get(name, 0) > loaded > 0  # cast up, as SDXL's VAE is
        return ELEMENT_BYTES["fp32"] if is_wider else element_bytes

    def _training(self) -> Iterator[Line]:
        """Yield what a training step keeps beside its weights at the peak: a share of what is live.

        The optimiser's moments live from its first step on, all gradients while it steps; while
        the backward pass runs, the gradients it has made so far are among the activations.
        """
        steps = self.settings.get("steps", 2)
        if self.settings.get("mode") != "train" or (isinstance(steps, int) and steps < 2):
            return
        element_bytes = ELEMENT_BYTES[str(self.settings.get("dtype", "fp32"))]
        one_each = sum(part.parameters for part in self.result.parts) * element_bytes
        kept = [
            (
                LineKind.OPTIMIZER_STATE,
                "optimiser state (Adam)",
                2 * one_each,
                "two moments for each parameter",
            )
        ]
        if self.peak_mark.component == "optimizer":
            kept.insert(0, (LineKind.GRADIENTS, "gradients", one_each, "one for each parameter"))
        for kind, name, size, source in kept:
            yield Line(
                kind=kind,
                device=GPU,
                name=name,
                phase=self.peak_mark.phase,
                component=None,
                band=Band.exactly(size),
                origin=Origin.REPLAYED,
                source=f"{source}, counted; part of what the tape has live at its peak",
            )

    def _activations_name(self) -> str:
        if self.settings.get("offload") == "sequential":
            return "activations and the layer's weights"
        if self.settings.get("mode") == "train":
            if self.peak_mark.component == "optimizer":
                return "activations of the optimiser"
            return "activations and gradients"
        return "activations"

    def _weights(self, resident: Mapping[str, int]) -> Iterator[Line]:
        totals: dict[str, int] = {}
        for part in self.result.parts:
            totals[part.component] = totals.get(part.component, 0) + part.weights_bytes
        for part in self.result.parts:
            held = resident.get(part.component, 0)
            if held:
                # a cast (SDXL's VAE to fp32) makes the whole component larger than it was loaded
                size = part.weights_bytes * held // totals[part.component]
                yield Line(
                    kind=LineKind.WEIGHTS,
                    device=GPU,
                    name="weights",
                    phase=None,
                    component=part.name,
                    band=Band.exactly(size),
                    origin=Origin.EXACT,
                    source="counted from the class's parameters and buffers",
                )

    # ----------------------------------------------------------------- tables
    def _components(self) -> Iterator[Component]:
        dtype = str(self.settings.get("dtype", "fp32"))
        is_split = self.settings.get("offload", "none") != "none"
        for part in self.result.parts:
            stays = not is_split or part.component in STAYS_ON_DEVICE
            yield Component(
                name=part.name,
                parameters=part.parameters,
                dtype=dtype,
                weights_bytes=part.weights_bytes,
                device="gpu" if stays else "split",
            )

    def _phases(self) -> Iterator[PhaseUse]:
        context = context_band(self.card).expected_bytes
        names = list(dict.fromkeys(mark.phase for mark in self.result.marks))
        for name in names:
            marks = [mark for mark in self.result.marks if mark.phase == name]
            top = max(marks, key=lambda mark: mark.allocated_peak_bytes)
            reserved = max(mark.reserved_peak_bytes for mark in marks)
            yield PhaseUse(
                name=name,
                component=top.component,
                allocated_peak_bytes=top.allocated_peak_bytes,
                reserved_peak_bytes=reserved,
                device_used_bytes=context + reserved,
            )

    def _timeline(self) -> Iterator[TimelinePoint]:
        for mark in self.result.marks:
            yield TimelinePoint(
                phase=mark.phase,
                component=mark.component,
                allocated_bytes=mark.allocated_peak_bytes,
                reserved_bytes=mark.reserved_peak_bytes,
            )

    def _need(self, device: Band) -> Need:
        """Return the least limit and the context; where memory spills, the device's peak."""
        expected = self.result.expected
        if self.settings.get("platform") in SPILLING_PLATFORMS:
            return Need(band=device, phase=self.peak_mark.phase, component=self.peak_mark.component)
        extra = cublas_band(self.compute_capability)[0]
        # least limits cross too: with more scratch the cache may be cut at better places
        scenarios = (self.result.low, expected, self.result.high)
        limits = [scenario.least_limit_bytes for scenario in scenarios]
        packed = _with_chance(
            Band(
                low_bytes=min(limits),
                expected_bytes=expected.least_limit_bytes,
                high_bytes=max(limits),
            )
        )
        band = replace(
            packed, high_bytes=packed.high_bytes + extra.high_bytes - extra.expected_bytes
        )
        return Need(
            band=context_band(self.card) + band,
            phase=expected.phase,
            component=expected.component,
        )

    def _notes(self) -> Iterator[str]:
        result = self.result
        yield (
            "need is the CUDA context and the least limit under which the whole run completes; the "
            "device shows more where there is room, because torch keeps freed blocks"
        )
        warm, cold = result.warm_reserved_peak_bytes, result.expected.reserved_peak_bytes
        if warm != cold:
            yield (
                f"a second run in the same process reserves {format_size(warm, up=True)}, "
                f"the first {format_size(cold, up=True)}"
            )
        steps = self.settings.get("steps")
        if isinstance(steps, int) and steps < 8:
            yield "fewer than 8 steps are planned as 8: a scheduler's history grows at first"


def _with_chance(band: Band) -> Band:
    """Return the band of several replays with a segment more or less; of equal ones as it is."""
    if band.low_bytes == band.high_bytes:
        return band
    return replace(
        band,
        low_bytes=max(0, band.low_bytes - _SEGMENT_BYTES),
        high_bytes=band.high_bytes + _SEGMENT_BYTES,
    )


def _slack(scenario: Scenario) -> int:
    return scenario.reserved_peak_bytes - scenario.allocated_peak_bytes
