"""What a budget is made of at its peak, ready to be stacked into a bar."""

from __future__ import annotations

from collections.abc import Sequence

from vramplan.model import Card, Estimate, Line, LineKind, TimelinePoint
from vramplan.quick_dataclass import dataclass
from vramplan.report.colour import LINE_TONES, Tone
from vramplan.report.phrases import name
from vramplan.units import MIB

#: what a reader calls each kind
KIND_WORDS = {
    Tone.WEIGHTS: "weights",
    Tone.ACTIVATIONS: "activations",
    Tone.CACHE: "kept between steps (KV cache, states, gradients, optimiser)",
    Tone.SCRATCH: "workspace and compute buffers",
    Tone.SLACK: "allocator slack",
    Tone.CONTEXT: "CUDA context",
    Tone.OTHER: "other",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One piece of a stacked budget, as wide as its expected bytes.

    `short` is its label where there is little room: the component of weights, else the line's.
    """

    label: str
    short: str
    kind: Tone
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a card offers, drawn as a line across a picture."""

    label: str
    budget_bytes: int


def peak_lines(estimate: Estimate) -> tuple[Line, ...]:
    """Return the lines that are there at the peak: its phase's, and those of every phase."""
    return tuple(line for line in estimate.lines if line.phase in (None, estimate.peak.phase))


def segments(estimate: Estimate) -> tuple[Segment, ...]:
    """Return the budget at its peak, piece by piece.

    What the lines leave of the peak is a piece of its own: a picture must not hide it. Pieces of
    one kind that are below 1 MiB are one piece.
    """
    lines = peak_lines(estimate)
    pieces = _folded([_segment(line) for line in lines if line.band.expected_bytes > 0])
    rest = estimate.peak.device.expected_bytes - sum(piece.size_bytes for piece in pieces)
    if rest > MIB:
        label = "not itemised"
        pieces.append(Segment(label=label, short=label, kind=Tone.OTHER, size_bytes=rest))
    return tuple(pieces)


def _folded(pieces: Sequence[Segment]) -> list[Segment]:
    """Return `pieces`, those of a kind that are below 1 MiB as one where the first of them is."""
    small: dict[Tone, list[Segment]] = {}
    for piece in pieces:
        if piece.size_bytes < MIB:
            small.setdefault(piece.kind, []).append(piece)
    kept = []
    for piece in pieces:
        alike = small.get(piece.kind, []) if piece.size_bytes < MIB else []
        if len(alike) < 2:
            kept.append(piece)
        elif piece is alike[0]:
            label = f"{len(alike)} parts below 1 MiB"
            size = sum(one.size_bytes for one in alike)
            kept.append(Segment(label=label, short=label, kind=piece.kind, size_bytes=size))
    return kept


def _segment(line: Line) -> Segment:
    spoken, component = name(line.name), name(line.component)
    has_component = line.component is not None
    return Segment(
        label=f"{spoken} · {component}" if has_component else spoken,
        short=component if has_component and line.kind is LineKind.WEIGHTS else spoken,
        kind=LINE_TONES[line.kind],
        size_bytes=line.band.expected_bytes,
    )


def work_of(estimate: Estimate, component: str) -> tuple[str | None, int]:
    """Return the phase in which `component` needs most beside its weights, and how much.

    Work of a part, such as ``vae.decoder``, that has no row is that of its whole.
    """
    rows = {one.name for one in estimate.components}
    lines = [
        line
        for line in estimate.lines
        if line.kind is not LineKind.WEIGHTS
        and line.component is not None
        and (
            line.component == component
            or (line.component.startswith(f"{component}.") and line.component not in rows)
        )
    ]
    always = sum(line.band.expected_bytes for line in lines if line.phase is None)
    best: tuple[str | None, int] = (None, always)
    for phase in dict.fromkeys(line.phase for line in lines if line.phase is not None):
        work = always + sum(line.band.expected_bytes for line in lines if line.phase == phase)
        if work > best[1]:
            best = (phase, work)
    return best


def context_bytes(estimate: Estimate) -> int:
    """Return what the process holds outside the framework's own counters at the peak."""
    return max(0, estimate.peak.device.expected_bytes - estimate.peak.reserved_bytes)


def card_offers(cards: Sequence[Card]) -> tuple[Offer, ...]:
    """Return what each card offers before margins and other processes, smallest first.

    What is free now counts where it is known, otherwise the capacity less system reserved.
    """
    offers = {
        name(card.name): Offer(
            label=name(card.name),
            budget_bytes=max(
                0,
                card.total_bytes - card.reserved_bytes
                if card.free_bytes is None
                else card.free_bytes,
            ),
        )
        for card in cards
    }
    return tuple(sorted(offers.values(), key=lambda offer: (offer.budget_bytes, offer.label)))


def steps(estimate: Estimate) -> tuple[TimelinePoint, ...]:
    """Return the run's timeline, or each phase's peaks where no timeline was replayed."""
    return estimate.timeline or tuple(
        TimelinePoint(
            phase=phase.name,
            component=phase.component,
            allocated_bytes=phase.allocated_peak_bytes,
            reserved_bytes=phase.reserved_peak_bytes,
        )
        for phase in estimate.phases
    )
