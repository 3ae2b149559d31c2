"""The tables of `tables` as GitHub-flavoured Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vramplan.model import Card, Estimate, Pipeline, Verdict, VerdictKind
from vramplan.report import estimate_rows, phrases
from vramplan.report.budget import card_offers
from vramplan.report.catalog_rows import card_table, pipeline_tables
from vramplan.report.chart import draw_budget
from vramplan.report.plain import headline
from vramplan.report.rows import Cell, Column, Table
from vramplan.report.verdict_rows import (
    Section,
    card_tables,
    check_table,
    counsels,
    sections,
    whys,
)

_CHART_WIDTH = 88
#: signs that Markdown gives a meaning wherever they stand
_MARKUP = re.compile(r"[\\`*\[\]<>&|~$]")
#: an underscore inside a word is text to GitHub, at a word's edge it is emphasis
_EDGE_UNDERSCORE = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
#: what begins a heading, a list or a rule where a line starts with it
_LINE_START = re.compile(r"^(?:[-+](?=[ -]|$)|=(?==)|#(?=[ #]|$)|\d+[.)](?= |$))")
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def render_check(verdicts: Sequence[Verdict], estimates: Sequence[Estimate]) -> str:
    """Return the verdicts, then per pipeline its components, the reasons and the advice."""
    if not verdicts:
        return "Nothing to judge.\n"
    parts = ["## Will it fit?", render_table(check_table(verdicts))]
    for section in sections(verdicts, estimates):
        parts += _section(section)
    return "\n\n".join(parts) + "\n"


def render_estimate(estimate: Estimate, *, cards: Sequence[Card] = ()) -> str:
    """Return the budget line by line and phase by phase, drawn against what `cards` offer."""
    return "\n\n".join([*_head(estimate), *_body(estimate, cards)]) + "\n"


def render_report(
    verdicts: Sequence[Verdict], estimates: Sequence[Estimate], cards: Sequence[Card]
) -> str:
    """Return the verdicts in a sentence and a table, then each pipeline once, with its budget.

    A reason says what the table does not, so that of what fits is left out.
    """
    parts = ["## Will it fit?"]
    parts += [escape(headline(verdicts)), render_table(check_table(verdicts))] if verdicts else []
    for section in sections(verdicts, estimates):
        estimate, doubtful = section.estimate, _doubtful(section.verdicts)
        parts += [_name(section)] if estimate is None else _head(estimate)
        parts += _judged(section.verdicts, doubtful)
        parts += [] if estimate is None else _body(estimate, cards)
    return "\n\n".join(parts) + "\n"


def _doubtful(verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    return tuple(one for one in verdicts if one.kind is not VerdictKind.FITS)


def _body(estimate: Estimate, cards: Sequence[Card]) -> list[str]:
    parts = [
        f"**{label}** {escape(sentence)}" for label, sentence in estimate_rows.summary(estimate)
    ]
    if estimate.components:
        parts += ["### Components", render_table(estimate_rows.component_table(estimate))]
    budget = estimate_rows.line_table(estimate)
    parts += ["### Budget", render_table(budget.table), *_notes(budget.notes)]
    drawn = draw_budget(
        estimate,
        card_offers(cards),
        width=_CHART_WIDTH,
        colour=False,
    )
    # A name may hold back-ticks, which would end the block.
    chart = "\n".join(line.rstrip() for line in drawn).replace("`", "'")
    parts += ["### The budget at its peak", f"```text\n{chart}\n```"]
    if estimate.phases:
        parts += ["### Phases", render_table(estimate_rows.phase_table(estimate))]
    buffers = estimate_rows.buffer_table(estimate)
    if buffers is not None:
        parts += ["### Buffers", render_table(buffers)]
    if estimate.published:
        known = estimate_rows.published_table(estimate)
        parts += ["### Published beside ours", render_table(known.table), *_notes(known.notes)]
    if estimate.notes:
        parts += ["### Notes", _bullets(estimate_rows.notes(estimate))]
    return parts


def render_catalog(pipelines: Sequence[Pipeline]) -> str:
    """Return one row per pipeline of the catalogue, a table a family."""
    return "\n".join(
        f"### {escape(family)}\n\n{render_table(table)}\n"
        for family, table in pipeline_tables(pipelines)
    )


def render_cards(cards: Sequence[Card]) -> str:
    """Return one row per card."""
    return render_table(card_table(cards)) + "\n"


def render_table(table: Table) -> str:
    """Return `table` as a GitHub table, its source lined up too; rows of totals are bold."""
    import tabulate

    rows = []
    first_total = len(table.rows) - table.totals
    for index, cells in enumerate(table.rows):
        if index < first_total:
            rows.append([_cell(cell, of) for cell, of in zip(cells, table.columns, strict=True)])
        else:
            rows.append([f"**{escape(cell.inline)}**" if cell.inline else "" for cell in cells])
    return tabulate.tabulate(
        rows,
        [escape(column.header) for column in table.columns],
        tablefmt="pipe",
        disable_numparse=True,
        colalign=tuple("right" if column.is_figure else "left" for column in table.columns),
    )


def escape(text: str) -> str:
    """Return harmless `text` so that Markdown shows it and does not obey it.

    A mention is broken by a zero-width space, because GitHub notifies people from escaped ones too.
    """
    marked = _MARKUP.sub(lambda match: _ENTITIES.get(match[0], f"\\{match[0]}"), text)
    marked = _EDGE_UNDERSCORE.sub(r"\\_", marked).replace("@", "@\N{ZERO WIDTH SPACE}")
    return _LINE_START.sub(_backslash_last, marked)


def _backslash_last(match: re.Match[str]) -> str:
    return f"{match[0][:-1]}\\{match[0][-1]}"


def _cell(cell: Cell, column: Column) -> str:
    text = _code(cell.text) if column.is_name else escape(cell.text)
    return f"{text} {escape(cell.behind)}".strip()


def _code(text: str) -> str:
    """Return a name as a code span, which may stand in a table."""
    if text in ("", phrases.NOTHING):
        return text
    quoted = text.replace("`", "'").replace("|", "\\|")
    return f"`{quoted}`"


def _head(estimate: Estimate) -> list[str]:
    about = [phrases.name(estimate.runtime), phrases.compute(estimate.compute_capability)]
    about += [part for part in (estimate_rows.layer_sentence(estimate),) if part]
    settings = phrases.settings(estimate.settings)
    head = [f"## {escape(phrases.headline(estimate))}", escape(" · ".join(about))]
    return head + ([_code(settings)] if settings else [])


def _section(section: Section) -> list[str]:
    estimate = section.estimate
    if estimate is None:
        parts = [_name(section)]
    else:
        parts = _head(estimate)
        if estimate.components:
            parts.append(render_table(estimate_rows.component_table(estimate)))
    return parts + _judged(section.verdicts, section.verdicts)


def _name(section: Section) -> str:
    return f"## {escape(phrases.called(section.pipeline, section.asked))}"


def _judged(verdicts: Sequence[Verdict], explained: Sequence[Verdict]) -> list[str]:
    """Return what several cards hold, why those of `explained` came out so, and what helps."""
    parts: list[str] = []
    for cards, each in card_tables(verdicts):
        parts += [f"### {escape(cards)}", render_table(each)]
    reasons = [
        f"- **{phrases.verdict(why.kind)}** {escape(', '.join(why.cards))}: "
        f"{escape(why.reason) or 'no reason given'}"
        for why in whys(explained)
    ]
    parts += ["\n".join(reasons)] if reasons else []
    tries = []
    for counsel in counsels(verdicts):
        said = [escape(f"on {', '.join(counsel.cards)}"), escape(counsel.effect)]
        said += [escape(f"need {counsel.need}")] if counsel.need else []
        said += [escape(f"cost: {counsel.cost}")] if counsel.cost else []
        tries.append(f"- try {_code(counsel.change)}: {' · '.join(part for part in said if part)}")
    return parts + (["\n".join(tries)] if tries else [])


def _notes(notes: Sequence[str]) -> list[str]:
    numbered = [f"- \\[{number}\\] {escape(note)}" for number, note in enumerate(notes, start=1)]
    return ["\n".join(numbered)] if numbered else []


def _bullets(notes: Sequence[str]) -> str:
    return "\n".join(f"- {escape(note)}" for note in notes)
