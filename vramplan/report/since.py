"""What has changed since an earlier answer, as a sheet."""

from __future__ import annotations

from collections.abc import Sequence

from vramplan.budget.difference import Became, Comparison, Difference
from vramplan.model import Verdict
from vramplan.quick_typing import TYPE_CHECKING
from vramplan.report import phrases
from vramplan.report.colour import Tone, verdict_tone

if TYPE_CHECKING:
    from vramplan.report.sheet import Sheet

_MIB = 1 << 20


def against_sheet(verdicts: Sequence[Verdict], compared: Comparison) -> Sheet:
    """Return a row for each verdict: what it was, what it is, and by how much that differs."""
    from vramplan.report.rows import cell, table
    from vramplan.report.sheet import Sheet
    from vramplan.report.text import clean

    rows = []
    for verdict, one in zip(verdicts, compared.differences, strict=True):
        kind = verdict.kind
        name = cell(
            phrases.called(verdict.pipeline, verdict.asked),
            phrases.differing(verdict.pipeline, verdict.asked),
            Tone.STRONG,
        )
        rows.append(
            (
                name,
                cell(phrases.name(verdict.card)),
                cell(phrases.NOTHING if one.before is None else phrases.verdict(one.before.kind)),
                cell(phrases.verdict(kind), tone=verdict_tone(kind)),
                cell(phrases.need(verdict.need.expected_bytes)),
                cell(words(one, verdict)),
            )
        )
    lines = [summary(compared)]
    if compared.gone:
        gone = ", ".join(
            f"{phrases.name(one.label)} on {phrases.name(one.card)}" for one in compared.gone[:20]
        )
        more = f" and {len(compared.gone) - 20} more" if len(compared.gone) > 20 else ""
        lines.append(f"judged no more: {gone}{more}")
    place = clean(compared.place.replace("\\", "/").rpartition("/")[2], 200)
    head = f"since {place}" if place else "since then"
    headers = "pipeline!, card!, was, is, need#, change"
    return Sheet(heading=head, lines=lines, tables=[("", table(headers, rows))] if rows else [])


def summary(compared: Comparison) -> str:
    """Return ``1 worse, 2 as before, 1 new``, in a sentence."""
    said = {
        Became.WORSE: "worse",
        Became.NEW: "new",
        Became.SAME: "as before",
        Became.BETTER: "better",
    }
    parts = [
        f"{compared.count(change)} {word}"
        for change, word in said.items()
        if compared.count(change)
    ]
    return ", ".join(parts) or "nothing to compare"


def words(one: Difference, verdict: Verdict) -> str:
    """Return what has changed in a few words: ``+1,120 MiB, now tight``."""
    if one.before is None:
        return "new"
    parts = [_more(one.need_bytes or 0)]
    if _whole(one.budget_bytes or 0):
        parts.append(f"budget {_more(one.budget_bytes or 0)}")
    if one.became is not Became.SAME:
        parts.append(f"now {verdict.kind.value}")
    if one.before.target != (verdict.asked.text or verdict.pipeline):
        parts.append("other settings")
    said = [part for part in parts if part]
    return ", ".join(said) or "as before"


def _whole(size_bytes: int) -> int:
    """Return whole MiB, nearest: what is less is no change to speak of."""
    return round(size_bytes / _MIB)


def _more(size_bytes: int) -> str:
    whole = _whole(size_bytes)
    return f"{whole:+,} MiB".replace("-", "\N{MINUS SIGN}") if whole else ""
