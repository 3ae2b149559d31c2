"""Terminal output: verdicts, budgets, the catalogue and the cards as tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vramplan.model import Card, Estimate, Pipeline, Verdict
from vramplan.quick_typing import TYPE_CHECKING
from vramplan.report import estimate_rows, phrases
from vramplan.report.budget import card_offers
from vramplan.report.chart import draw_budget
from vramplan.report.colour import Tone, paint, verdict_tone
from vramplan.report.grid import draw_table, natural_width
from vramplan.report.rows import Table
from vramplan.report.text import clean, wrap

if TYPE_CHECKING:  # each of these is for one command
    from vramplan.report.verdict_rows import Counsel, Section, Why

_INDENT = "  "


def render_check(
    verdicts: Sequence[Verdict], estimates: Sequence[Estimate], *, colour: bool, width: int
) -> str:
    """Return the verdicts, then per pipeline its components, the reasons and the advice."""
    if not verdicts:
        return "nothing to judge\n"
    from vramplan.report.verdict_rows import sections

    drawn = _draw_verdicts(verdicts, colour, width)
    for section in sections(verdicts, estimates):
        drawn += ["", *_draw_section(section, colour, width)]
    return "\n".join(drawn) + "\n"


#: so many commands that come next are shown
_MOST_NEXT = 4


def draw_next(commands: Sequence[str], colour: bool) -> str:
    """Return commands that come next, a line each that is never broken: it is copied from there."""
    if not commands:
        return ""
    shown = [clean(command, 4_000) for command in commands[:_MOST_NEXT]]
    drawn = [f"{paint('next', Tone.STRONG, colour)}  {command}" for command in shown]
    if len(commands) > _MOST_NEXT:
        drawn.append(f"      and so on for {len(commands) - _MOST_NEXT} more that fail")
    return "\n".join(["", *drawn]) + "\n"


def render_estimate(
    estimate: Estimate, *, colour: bool, width: int, cards: Sequence[Card] = ()
) -> str:
    """Return the budget line by line and phase by phase, drawn against what `cards` offer."""
    drawn = [*_draw_head(estimate, colour, width), *_draw_body(estimate, cards, colour, width)]
    return "\n".join(drawn) + "\n"


def render_report(
    verdicts: Sequence[Verdict],
    estimates: Sequence[Estimate],
    cards: Sequence[Card],
    *,
    colour: bool,
    width: int,
) -> str:
    """Return the verdicts in a sentence and a table, then each pipeline once, with its budget."""
    from vramplan.report.plain import headline
    from vramplan.report.verdict_rows import sections

    drawn = [*wrap(headline(verdicts), width), ""] if verdicts else []
    drawn += _draw_verdicts(verdicts, colour, width) if verdicts else []
    for section in sections(verdicts, estimates):
        estimate = section.estimate
        drawn += ["", *_draw_name(section, colour, width), *_draw_judged(section, colour, width)]
        drawn += [] if estimate is None else _draw_body(estimate, cards, colour, width)
    return "\n".join(drawn) + "\n"


def _draw_body(estimate: Estimate, cards: Sequence[Card], colour: bool, width: int) -> list[str]:
    inner = width - len(_INDENT)
    drawn: list[str] = []
    if estimate.components:
        drawn += _part(
            "components", _draw(estimate_rows.component_table(estimate), inner, colour), colour
        )
    budget = estimate_rows.line_table(estimate)
    drawn += _part(
        "budget", _draw(budget.table, inner, colour) + _notes(budget.notes, inner, colour), colour
    )
    offers = card_offers(cards)
    picture = draw_budget(estimate, offers, width=inner, colour=colour)
    drawn += _part("the budget at its peak", picture, colour)
    if estimate.phases:
        drawn += _part("phases", _draw(estimate_rows.phase_table(estimate), inner, colour), colour)
    drawn += _draw_buffers(estimate, inner, colour)
    drawn.append("")
    for label, sentence in estimate_rows.summary(estimate):
        drawn += _hanging(f"{label}  ", sentence, width, colour=colour, tone=Tone.STRONG)
    if estimate.published:
        known = estimate_rows.published_table(estimate)
        body = _draw(known.table, inner, colour, stacked=True) + _notes(known.notes, inner, colour)
        drawn += _part("published beside ours", body, colour)
    notes = estimate_rows.notes(estimate)
    if notes:
        body = [line for note in notes for line in _hanging("- ", note, inner, colour=colour)]
        drawn += _part("notes", body, colour)
    return drawn


def render_catalog(pipelines: Sequence[Pipeline], *, colour: bool = False, width: int = 100) -> str:
    """Return one row per pipeline of the catalogue, a table a family."""
    if not pipelines:
        return "no pipelines\n"
    from vramplan.report.catalog_rows import pipeline_tables
    from vramplan.report.sheet import Sheet, draw_sheet

    return draw_sheet(Sheet(tables=pipeline_tables(pipelines)), colour, width)


def render_cards(cards: Sequence[Card], *, colour: bool = False, width: int = 100) -> str:
    """Return one row per card."""
    if not cards:
        return "no cards\n"
    from vramplan.report.catalog_rows import card_table

    return "\n".join(_draw(card_table(cards), width, colour)) + "\n"


def _draw_verdicts(verdicts: Sequence[Verdict], colour: bool, width: int) -> list[str]:
    """Return the verdicts in the roomiest form that `width` allows."""
    from vramplan.report.verdict_rows import Form, check_table

    forms = ((Form.DRAWN, False), (Form.FULL, True), (Form.COMPACT, True))
    for form, stacked in forms:
        table = check_table(verdicts, form)
        if natural_width(table, stacked=stacked) <= width:
            return draw_table(table, width=width, colour=colour, stacked=stacked)
    narrow = check_table(verdicts, Form.NARROW)
    return draw_table(narrow, width=width, colour=colour, stacked=True)


def _draw(table: Table, width: int, colour: bool, *, stacked: bool = False) -> list[str]:
    return draw_table(table, width=width, colour=colour, stacked=stacked)


def _draw_head(estimate: Estimate, colour: bool, width: int) -> list[str]:
    head = wrap(phrases.headline(estimate), width)
    about = f"{phrases.name(estimate.runtime)} · {phrases.compute(estimate.compute_capability)}"
    layers = estimate_rows.layer_sentence(estimate)
    if layers:
        about += f" · {layers}"
    return [
        *(paint(line, Tone.STRONG, colour) for line in head),
        *wrap(about, width),
        *(
            paint(line, Tone.DIM, colour)
            for line in wrap(phrases.settings(estimate.settings), width)
            if line
        ),
    ]


def _draw_section(section: Section, colour: bool, width: int) -> list[str]:
    drawn = _draw_name(section, colour, width)
    estimate = section.estimate
    if estimate is not None and estimate.components:
        table = estimate_rows.component_table(estimate)
        drawn += _indented(_draw(table, width - len(_INDENT), colour))
    return drawn + _draw_judged(section, colour, width)


def _draw_name(section: Section, colour: bool, width: int) -> list[str]:
    if section.estimate is not None:
        return _draw_head(section.estimate, colour, width)
    lines = wrap(phrases.called(section.pipeline, section.asked), width)
    return [paint(line, Tone.STRONG, colour) for line in lines]


def _draw_judged(section: Section, colour: bool, width: int) -> list[str]:
    """Return what several cards hold, why each verdict came out so, and what helps."""
    from vramplan.report.verdict_rows import card_tables, counsels, whys

    drawn: list[str] = []
    for cards, each in card_tables(section.verdicts):
        drawn += ["", cards, *_indented(_draw(each, width - len(_INDENT), colour))]
    if any(verdict.cards for verdict in section.verdicts):
        drawn.append("")
    for why in whys(section.verdicts):
        drawn += _draw_why(why, colour, width)
    for counsel in counsels(section.verdicts):
        drawn += _draw_counsel(counsel, colour, width)
    return drawn


def _draw_why(why: Why, colour: bool, width: int) -> list[str]:
    label = f"{phrases.verdict(why.kind)}  "
    sentence = f"{', '.join(why.cards)}: {why.reason or 'no reason given'}"
    return _hanging(label, sentence, width, colour=colour, tone=verdict_tone(why.kind))


def _draw_counsel(counsel: Counsel, colour: bool, width: int) -> list[str]:
    drawn = _hanging("try  ", counsel.change, width, colour=colour, tone=Tone.STRONG)
    said = [f"on {', '.join(counsel.cards)}", counsel.effect]
    said += [f"need {counsel.need}"] if counsel.need else []
    said += [f"cost: {counsel.cost}"] if counsel.cost else []
    effect = " · ".join(part for part in said if part)
    return drawn + [paint(f"     {line}", Tone.DIM, colour) for line in wrap(effect, width - 5)]


def _draw_buffers(estimate: Estimate, width: int, colour: bool) -> list[str]:
    buffers = estimate_rows.buffer_table(estimate)
    return [] if buffers is None else _part("buffers", _draw(buffers, width, colour), colour)


def _part(title: str, body: Iterable[str], colour: bool) -> list[str]:
    return ["", paint(title, Tone.STRONG, colour), *_indented(body)]


def _indented(body: Iterable[str]) -> list[str]:
    return [(_INDENT + line).rstrip() for line in body]


def _notes(notes: Sequence[str], width: int, colour: bool) -> list[str]:
    return [
        paint(line, Tone.DIM, colour)
        for number, note in enumerate(notes, start=1)
        for line in _hanging(f"[{number}] ", note, width, colour=False)
    ]


def _hanging(
    label: str, text: str, width: int, *, colour: bool, tone: Tone = Tone.PLAIN
) -> list[str]:
    """Return `text` wrapped behind `label`, later lines indented as far."""
    first, *rest = wrap(text, max(width - len(label), 8))
    indent = " " * len(label)
    return [paint(label.rstrip(), tone, colour) + label[len(label.rstrip()) :] + first] + [
        indent + line for line in rest
    ]
