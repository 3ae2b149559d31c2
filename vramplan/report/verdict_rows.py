"""Verdicts as tables and sentences."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from vramplan.model import Advice, Asked, Estimate, Verdict, VerdictKind
from vramplan.quick_dataclass import dataclass, replace
from vramplan.report import phrases
from vramplan.report.colour import Tone, verdict_tone
from vramplan.report.rows import Cell, Table, cell, table
from vramplan.report.text import clean

#: a pipeline, what a project calls it, and the TARGET with its settings
_Key = tuple[str, str, str]


class Form(Enum):
    """How much room a table of verdicts takes.

    DRAWN is for terminals alone, and the bar is below the verdict in those that are stacked there.
    """

    DRAWN = "a column for every figure, and one for the bar"
    FULL = "a column for every figure"
    COMPACT = "the risk below the verdict, the budget below the headroom"
    NARROW = "and the card below the pipeline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """One reason, and the cards it holds for."""

    cards: tuple[str, ...]
    kind: VerdictKind
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Counsel:
    """One piece of advice in harmless words, and the cards it is meant for."""

    cards: tuple[str, ...]
    change: str
    effect: str
    cost: str
    need: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What there is to say about one pipeline as it was asked for: its estimate, its verdicts."""

    pipeline: str
    asked: Asked
    estimate: Estimate | None
    verdicts: tuple[Verdict, ...]


def check_table(verdicts: Sequence[Verdict], form: Form = Form.FULL) -> Table:
    """Return one row per pipeline and card."""
    headers = {
        Form.DRAWN: "pipeline!, card!, verdict, of budget, need#, budget#, headroom#, risk#, peak!",
        Form.FULL: "pipeline!, card!, verdict, need#, budget#, headroom#, risk#, peak!",
        Form.COMPACT: "pipeline!, card!, verdict, need#, headroom#, peak!",
        Form.NARROW: "pipeline!, verdict, need#, headroom#, peak!",
    }
    return table(headers[form], (_row(verdict, form) for verdict in verdicts))


def _row(verdict: Verdict, form: Form) -> tuple[Cell, ...]:
    pipeline = phrases.called(verdict.pipeline, verdict.asked)
    chosen, card = phrases.differing(verdict.pipeline, verdict.asked), phrases.name(verdict.card)
    judged = phrases.judged(verdict)
    budget = phrases.available(verdict.budget_bytes)
    headroom = phrases.available(verdict.headroom_bytes)
    risk = phrases.risk(verdict)
    left = phrases.headroom_of(verdict)
    tone = verdict_tone(verdict.kind)
    word = phrases.verdict(verdict.kind)
    need = need_cell(verdict)
    place = phrases.name(verdict.peak_phase), phrases.name(verdict.peak_component)
    peak = cell(*place, joint="· {}")
    drawn = bar(verdict)
    folded = (
        replace(cell(word, f"risk {risk}", tone), below=drawn),
        need,
        cell(headroom, f"of {budget} {left}".rstrip()),
        peak,
    )
    if form is Form.NARROW:
        on_card = f"on {card} ({judged})" if judged else f"on {card}"
        beside = f"{chosen}, {on_card}" if chosen else on_card
        return (cell(pipeline, beside, Tone.STRONG), *folded)
    ends = (cell(pipeline, chosen, Tone.STRONG), cell(card, judged))
    if form is Form.COMPACT:
        return (*ends, *folded)
    return (
        *ends,
        replace(cell(word, tone=tone), below=drawn),
        *((cell(drawn, tone=tone),) if form is Form.DRAWN else ()),
        need,
        cell(budget),
        cell(headroom, left),
        cell(risk),
        peak,
    )


#: the cells of a bar that fills the budget; one more says that it is not enough
_CELLS = 10


def bar(verdict: Verdict) -> str:
    """Return a bar of the need, solid as expected, pale up to the high estimate, in the budget.

    What goes beyond the budget has an eleventh cell: an arrow where it is the expected need.
    """
    budget, need = verdict.budget_bytes, verdict.need
    if budget <= 0 or need.expected_bytes > budget:
        return "█" * _CELLS + "▶"
    solid, pale = (-(-size * _CELLS // budget) for size in (need.expected_bytes, need.high_bytes))
    cells = "█" * solid + "▒" * (min(pale, _CELLS) - solid)
    return f"{cells:░<{_CELLS}}" + ("▒" if pale > _CELLS else "")


def need_cell(verdict: Verdict) -> Cell:
    """Return the expected need, with its low and high behind it."""
    return cell(phrases.need(verdict.need.expected_bytes), phrases.spread(verdict.need))


def whys(verdicts: Sequence[Verdict]) -> tuple[Why, ...]:
    """Return each reason once, with all cards that it holds for."""
    cards: dict[tuple[VerdictKind, str], list[str]] = {}
    for verdict in verdicts:
        key = (verdict.kind, clean(verdict.reason))
        cards.setdefault(key, []).append(phrases.name(verdict.card))
    return tuple(
        Why(cards=tuple(dict.fromkeys(known)), kind=kind, reason=reason)
        for (kind, reason), known in cards.items()
    )


def card_tables(verdicts: Sequence[Verdict]) -> tuple[tuple[str, Table], ...]:
    """Return what each card holds, for the verdicts on several cards, under the cards' name."""
    if not any(verdict.cards for verdict in verdicts):
        return ()
    from vramplan.report.card_rows import card_table

    return tuple(
        (
            phrases.name(verdict.card),
            card_table(
                verdict.cards, [buffer for buffer in verdict.buffers if buffer.device.is_host]
            ),
        )
        for verdict in verdicts
        if verdict.cards
    )


def counsels(verdicts: Sequence[Verdict]) -> tuple[Counsel, ...]:
    """Return each piece of advice once, in order, with all cards that it is meant for."""
    cards: dict[Advice, list[str]] = {}
    for verdict in verdicts:
        for advice in verdict.advice:
            cards.setdefault(advice, []).append(phrases.name(verdict.card))
    return tuple(
        Counsel(
            cards=tuple(dict.fromkeys(known)),
            change=clean(advice.change),
            effect=clean(advice.effect),
            cost=clean(advice.cost),
            need="" if advice.need_bytes is None else phrases.need(advice.need_bytes),
        )
        for advice, known in cards.items()
    )


def sections(verdicts: Sequence[Verdict], estimates: Sequence[Estimate]) -> tuple[Section, ...]:
    """Return verdicts and estimates by what was asked, in the order in which it first appears.

    A pipeline at other settings is another one. Where one was estimated for several compute
    capabilities, the one that needs most stands for it.
    """
    worst: dict[_Key, Estimate] = {}
    for estimate in estimates:
        key = _key(estimate)
        known = worst.get(key)
        if known is None or estimate.need.band.expected_bytes > known.need.band.expected_bytes:
            worst[key] = estimate
    first: dict[_Key, Verdict | Estimate] = {}
    listed: list[Verdict | Estimate] = [*verdicts, *worst.values()]
    for one in listed:
        first.setdefault(_key(one), one)
    return tuple(
        Section(
            pipeline=one.pipeline,
            asked=one.asked,
            estimate=worst.get(key),
            verdicts=tuple(verdict for verdict in verdicts if _key(verdict) == key),
        )
        for key, one in first.items()
    )


def _key(one: Verdict | Estimate) -> _Key:
    return one.pipeline, one.asked.name, one.asked.text
