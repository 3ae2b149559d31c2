"""What became of a program on pretended cards, as one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence

from vramplan import __version__
from vramplan.measurement.tried import Holder, Trial, TrialOutcome
from vramplan.model import Band
from vramplan.report import phrases
from vramplan.report.html import drawn, open_templates, without_margins
from vramplan.report.rows import Table
from vramplan.report.svg import draw_meter
from vramplan.report.text import clean
from vramplan.report.trial_svg import draw_both
from vramplan.units import MIB

_TONES = {
    TrialOutcome.COMPLETES: "fits",
    TrialOutcome.OUT_OF_MEMORY: "oom",
    TrialOutcome.FAILED: "oom",
}


#: who holds the memory is told by so many of them on top of the page
_MOST_HOLDERS = 3


def render_trials(
    trials: Sequence[Trial],
    *,
    program: str,
    headline: Sequence[str],
    peaks: Table,
    chapters: Sequence[dict[str, object]],
    notes: Sequence[str],
) -> str:
    """Return the page: what became of it on each card, then a chapter for each of `trials`."""
    for number, (one, chapter) in enumerate(zip(trials, chapters, strict=True)):
        chapter["picture"] = drawn(draw_both(f"run{number}", one))
        chapter["anchor"] = f"r{number}"
        chapter["name"] = phrases.name(one.card)
        chapter["title"] = "" if one.card_title == one.card else clean(one.card_title, 120)
        chapter.update(_at_a_glance(one))
    versions = dict(pair for one in trials for pair in one.versions)
    page = (
        open_templates()
        .get_template("trials.html.j2")
        .render(
            version=clean(__version__, 40),
            program=program,
            headline=headline,
            outcome=_outcome(trials),
            peaks=peaks,
            chapters=chapters,
            notes=notes,
            versions=", ".join(f"{name} {clean(told, 60)}" for name, told in versions.items()),
        )
    )
    return without_margins(page)


def _outcome(trials: Sequence[Trial]) -> str:
    """Return what became of it, on which cards, in a sentence."""
    clauses = []
    for outcome, words in (
        (TrialOutcome.COMPLETES, "completes"),
        (TrialOutcome.OUT_OF_MEMORY, "runs out of memory"),
        (TrialOutcome.FAILED, "fails for reasons of its own"),
    ):
        cards = [phrases.name(one.card) for one in trials if one.outcome is outcome]
        if cards:
            *first, last = cards
            named = f"{', '.join(first)} and {last}" if first else last
            clauses.append(f"{words} on {named}")
    return f"It {', and '.join(clauses)}."


def _at_a_glance(one: Trial) -> dict[str, object]:
    """Return the row on top of the page: how much of the card it takes, where it stops, on what."""
    failed = one.failed if one.outcome is TrialOutcome.OUT_OF_MEMORY else None
    low, taken, high = one.context_bytes
    used = one.device_peak_bytes
    if failed is not None:
        used = max(used, taken + failed.reserved_bytes + failed.asked_bytes)
    band = Band(
        low_bytes=max(0, used - taken + low), expected_bytes=used, high_bytes=used - taken + high
    )
    holders = one.holders if failed is None else failed.holders
    return {
        "meter": drawn(draw_meter(band, one.total_bytes, _TONES[one.outcome])) if used else "",
        "need": phrases.need(used),
        "is_least": failed is not None,
        "budget": phrases.available(one.total_bytes),
        "share": f"{-(-used * 100 // max(one.total_bytes, 1)):,} %",
        "held": [
            (clean(_holder(holder), 120), phrases.nearest(holder.size_bytes))
            for holder in sorted(holders, key=lambda each: -each.size_bytes)[:_MOST_HOLDERS]
            if holder.size_bytes >= MIB
        ],
    }


def _holder(holder: Holder) -> str:
    if holder.name is not None:
        return holder.name
    place = holder.place
    return "what was allocated early" if place is None else f"{place.file}:{place.line}"
