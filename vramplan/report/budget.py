"""What a budget is made of at its peak, ready to be stacked into a bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vramplan.model import Card, Estimate, Term, TimelinePoint
from vramplan.report.colour import Tone
from vramplan.report.phrases import name
from vramplan.units import MIB

#: the first word found in a term's name decides what kind of memory it is
_KINDS = (
    ("context", Tone.CONTEXT),
    ("slack", Tone.SLACK),
    ("fragment", Tone.SLACK),
    ("allocator", Tone.SLACK),
    ("rounding", Tone.SLACK),
    ("activation", Tone.ACTIVATIONS),
    ("kv", Tone.CACHE),
    ("state", Tone.CACHE),
    ("gradient", Tone.CACHE),
    ("optimi", Tone.CACHE),
    ("adam", Tone.CACHE),
    ("workspace", Tone.SCRATCH),
    ("compute", Tone.SCRATCH),
    ("scratch", Tone.SCRATCH),
    ("cublas", Tone.SCRATCH),
    ("pool", Tone.SCRATCH),
    ("weight", Tone.WEIGHTS),
    ("model", Tone.WEIGHTS),
    ("projector", Tone.WEIGHTS),
)

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

    `short` is its label where there is little room: the component of weights, else the term.
    """

    label: str
    short: str
    kind: Tone
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What a card offers, drawn as a line across a picture."""

    label: str
    budget_bytes: int


def kind_of(term: Term) -> Tone:
    """Return what kind of memory `term` is, by the words of its name."""
    spoken = term.name.lower()
    return next((kind for word, kind in _KINDS if word in spoken), Tone.OTHER)


def peak_terms(estimate: Estimate) -> tuple[Term, ...]:
    """Return the terms that are there at the peak: its phase's, and those of every phase."""
    return tuple(term for term in estimate.terms if term.phase in (None, estimate.peak.phase))


def segments(estimate: Estimate) -> tuple[Segment, ...]:
    """Return the budget at its peak, piece by piece.

    What the terms leave of the peak is a piece of its own: a picture must not hide it.
    """
    terms = peak_terms(estimate)
    pieces = [_segment(term) for term in terms if term.band.expected_bytes > 0]
    rest = estimate.peak.device.expected_bytes - sum(piece.size_bytes for piece in pieces)
    if rest > MIB:
        label = "not itemised"
        pieces.append(Segment(label=label, short=label, kind=Tone.OTHER, size_bytes=rest))
    return tuple(pieces)


def _segment(term: Term) -> Segment:
    kind = kind_of(term)
    spoken, component = name(term.name), name(term.component)
    has_component = term.component is not None
    return Segment(
        label=f"{spoken} · {component}" if has_component else spoken,
        short=component if has_component and kind is Tone.WEIGHTS else spoken,
        kind=kind,
        size_bytes=term.band.expected_bytes,
    )


def work_of(estimate: Estimate, component: str) -> tuple[str | None, int]:
    """Return the phase in which `component` needs most beside its weights, and how much."""
    terms = [
        term
        for term in estimate.terms
        if term.component == component and kind_of(term) is not Tone.WEIGHTS
    ]
    always = sum(term.band.expected_bytes for term in terms if term.phase is None)
    best: tuple[str | None, int] = (None, always)
    for phase in dict.fromkeys(term.phase for term in terms if term.phase is not None):
        work = always + sum(term.band.expected_bytes for term in terms if term.phase == phase)
        if work > best[1]:
            best = (phase, work)
    return best


def context_bytes(estimate: Estimate) -> int:
    """Return what the process holds outside the framework's own counters at the peak."""
    return max(0, estimate.peak.device.expected_bytes - estimate.peak.reserved_bytes)


def lines(cards: Sequence[Card]) -> tuple[Line, ...]:
    """Return what each card offers before margins and other processes, smallest first.

    What is free now counts where it is known, otherwise the capacity less system reserved.
    """
    offers = {
        name(card.name): Line(
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
    return tuple(sorted(offers.values(), key=lambda line: (line.budget_bytes, line.label)))


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
