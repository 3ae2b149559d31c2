"""The fit report: one self-contained page that needs no network, no script and no fonts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vramplan import __version__
from vramplan.model import Card, Estimate, Settings, Verdict, VerdictKind
from vramplan.quick_dataclass import dataclass
from vramplan.report import estimate_rows, phrases
from vramplan.report.budget import KIND_WORDS, Offer, Segment, card_offers, segments
from vramplan.report.rows import NotedTable, Table
from vramplan.report.svg import draw_budget, draw_meter, draw_swatch, highest_bytes, shown_lines
from vramplan.report.text import clean
from vramplan.report.timeline import draw_timeline
from vramplan.report.verdict_rows import Counsel, Section, Why, counsels, sections, whys

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup

_TEMPLATES = Path(__file__).parent / "templates"

_MEANINGS = {
    VerdictKind.FITS: "even the high estimate is within the budget",
    VerdictKind.TIGHT: "the expected need is within the budget, the high one is not",
    VerdictKind.OFFLOAD: "it runs, but partly from system memory",
    VerdictKind.OOM: "it fails for want of memory",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportMeta:
    """What the page says about itself; `created` is a date as text, so that pages compare."""

    title: str = "Will it fit?"
    command: str = ""
    created: str = ""
    version: str = __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixCell:
    """One pipeline on one card."""

    kind: str
    word: str
    need: str
    spread: str
    budget: str
    headroom: str
    risk: str
    place: str
    judged: str
    meter: Markup


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixRow:
    """One pipeline on every card; None where it was not judged."""

    anchor: str
    pipeline: str
    chosen: str
    cells: tuple[MatrixCell | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """What the page says about one pipeline."""

    anchor: str
    name: str
    title: str
    about: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]
    whys: tuple[Why, ...]
    counsels: tuple[Counsel, ...]
    body: ChapterBody | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChapterBody:
    """The pictures and tables of a pipeline that was estimated."""

    summary: tuple[tuple[str, str], ...]
    budget: Markup
    legend: tuple[tuple[Segment, str], ...]
    beyond: str
    timeline: Markup
    is_replayed: bool
    components: Table | None
    lines: NotedTable
    phases: Table | None
    buffers: Table | None
    published: NotedTable | None
    notes: tuple[str, ...]


def render_report(
    estimates: Sequence[Estimate],
    verdict_rows: Sequence[Verdict],
    cards: Sequence[Card],
    meta: ReportMeta | None = None,
) -> str:
    """Return the page: the matrix of verdicts, then a chapter for each pipeline."""
    chapters = sections(verdict_rows, estimates)
    named = meta or ReportMeta()
    about = {
        "title": clean(named.title, 120),
        "command": clean(named.command),
        "created": clean(named.created, 80),
        "version": clean(named.version, 40),
    }
    return (
        open_templates()
        .get_template("report.html.j2")
        .render(
            meta=about,
            columns=_columns(verdict_rows, cards),
            rows=_matrix(chapters),
            meanings=[(kind, phrases.verdict(kind), text) for kind, text in _MEANINGS.items()],
            kinds=KIND_WORDS,
            chapters=[
                _chapter(index, chapter, card_offers(cards))
                for index, chapter in enumerate(chapters)
            ],
            verdict_word=phrases.verdict,
            need=phrases.need,
        )
    )


@cache
def open_templates() -> jinja2.Environment:
    """Return Jinja with autoescape on and no name that may be missing."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["link"] = is_link
    style = (_TEMPLATES / "report.css").read_text(encoding="utf-8")
    environment.globals["style"] = drawn(style)
    environment.globals["style_hash"] = _hash(style)
    environment.globals["swatch"] = lambda css: drawn(draw_swatch(css))
    return environment


def _hash(style: str) -> str:
    """Return what a page's policy calls its style sheet: no other style is obeyed there."""
    from base64 import b64encode
    from hashlib import sha256

    return f"sha256-{b64encode(sha256(style.encode()).digest()).decode()}"


def is_link(text: str) -> bool:
    """Return whether `text` is a web address and nothing else."""
    return re.fullmatch(r"https?://[A-Za-z0-9][^\s<>\"'`\\]*", text) is not None


def _columns(verdicts: Sequence[Verdict], cards: Sequence[Card]) -> list[tuple[str, str]]:
    """Return each judged card's name and title, in the order they were judged."""
    titles = {card.name: card.title for card in cards}
    known: dict[str, str] = {}
    for verdict in verdicts:
        known.setdefault(verdict.card, verdict.card_title or titles.get(verdict.card, ""))
    return [(phrases.name(card), clean(title, 80)) for card, title in known.items()]


def _matrix(chapters: Sequence[Section]) -> list[MatrixRow]:
    cards = dict.fromkeys(verdict.card for chapter in chapters for verdict in chapter.verdicts)
    rows = []
    for index, chapter in enumerate(chapters):
        judged = {verdict.card: verdict for verdict in chapter.verdicts}
        if not judged:
            continue
        cells = (
            _matrix_cell(f"m{index}-{place}", judged.get(card)) for place, card in enumerate(cards)
        )
        rows.append(
            MatrixRow(
                anchor=f"p{index}",
                pipeline=phrases.called(chapter.pipeline, chapter.asked),
                chosen=phrases.differing(chapter.pipeline, chapter.asked),
                cells=tuple(cells),
            )
        )
    return rows


def _matrix_cell(identity: str, verdict: Verdict | None) -> MatrixCell | None:
    if verdict is None:
        return None
    return MatrixCell(
        kind=verdict.kind.value,
        word=phrases.verdict(verdict.kind),
        need=phrases.need(verdict.need.expected_bytes),
        spread=phrases.spread(verdict.need),
        budget=phrases.available(verdict.budget_bytes),
        headroom=_headroom(verdict),
        risk=phrases.risk(verdict),
        place=phrases.place(verdict.peak_phase, verdict.peak_component),
        judged=phrases.judged(verdict),
        meter=drawn(draw_meter(identity, verdict)),
    )


def _headroom(verdict: Verdict) -> str:
    """Return the headroom, and what it is true of where that is not plain."""
    size, of_what = phrases.available(verdict.headroom_bytes), phrases.headroom_of(verdict)
    return f"{size} {of_what}" if of_what else size


def _chapter(index: int, section: Section, offers: Sequence[Offer]) -> Chapter:
    estimate = section.estimate
    anchor = f"p{index}"
    settings: Settings = {} if estimate is None else estimate.settings
    return Chapter(
        anchor=anchor,
        name=phrases.called(section.pipeline, section.asked),
        title="" if estimate is None else clean(estimate.title, 120),
        about=() if estimate is None else _about(estimate),
        settings=tuple(
            (phrases.name(key), phrases.value(chosen)) for key, chosen in settings.items()
        ),
        whys=whys(section.verdicts),
        counsels=counsels(section.verdicts),
        body=None if estimate is None else _body(anchor, estimate, offers),
    )


def _about(estimate: Estimate) -> tuple[str, ...]:
    parts = (
        phrases.name(estimate.runtime),
        phrases.compute(estimate.compute_capability),
        estimate_rows.layer_sentence(estimate),
    )
    return tuple(part for part in parts if part)


def _body(anchor: str, estimate: Estimate, offers: Sequence[Offer]) -> ChapterBody:
    pieces = segments(estimate)
    return ChapterBody(
        summary=estimate_rows.summary(estimate),
        budget=drawn(draw_budget(f"{anchor}-budget", estimate, offers)),
        legend=tuple((piece, phrases.need(piece.size_bytes)) for piece in pieces),
        beyond=_beyond(estimate, offers),
        timeline=drawn(draw_timeline(f"{anchor}-timeline", estimate, offers)),
        is_replayed=bool(estimate.timeline),
        components=estimate_rows.component_table(estimate) if estimate.components else None,
        lines=estimate_rows.line_table(estimate),
        phases=estimate_rows.phase_table(estimate) if estimate.phases else None,
        buffers=estimate_rows.buffer_table(estimate),
        published=estimate_rows.published_table(estimate) if estimate.published else None,
        notes=estimate_rows.notes(estimate),
    )


def _beyond(estimate: Estimate, offers: Sequence[Offer]) -> str:
    """Return which cards offer too much to be drawn beside this budget, or nothing."""
    shown = shown_lines(offers, highest_bytes(estimate))
    beyond = [
        f"{offer.label} ({phrases.available(offer.budget_bytes)})"
        for offer in offers
        if offer not in shown
    ]
    return ", ".join(beyond)


def drawn(picture: str) -> Markup:
    """Return a picture of ours, whose text the element tree has escaped already, or our styles."""
    from markupsafe import Markup

    return Markup(picture)  # noqa: S704  # built by ElementTree, never from a stranger's markup
