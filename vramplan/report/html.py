"""The fit report: one self-contained page that needs no network, no script and no fonts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from vramplan import __version__
from vramplan.known_settings import told
from vramplan.model import Card, Estimate, Settings, Verdict, VerdictKind
from vramplan.quick_dataclass import dataclass, replace
from vramplan.quick_typing import TYPE_CHECKING
from vramplan.report import estimate_rows, phrases, plain
from vramplan.report.budget import Offer, card_offers, segments
from vramplan.report.colour import Tone
from vramplan.report.rows import Cell, NotedTable, Table
from vramplan.report.svg import (
    NARROW,
    WIDTH,
    draw_budget,
    draw_meter,
    draw_swatch,
    highest_bytes,
    shown_lines,
)
from vramplan.report.text import clean
from vramplan.report.timeline import draw_timeline
from vramplan.report.verdict_rows import (
    Counsel,
    Section,
    Why,
    card_tables,
    check_table,
    counsels,
    sections,
    whys,
)

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup

_TEMPLATES = Path(__file__).parent / "templates"

#: more verdicts than these get a table of signs before their bars
_MOST_AT_A_GLANCE = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportMeta:
    """What the page says about itself; `created` is a date as text, so that pages compare."""

    title: str = "Will it fit?"
    command: str = ""
    created: str = ""
    version: str = __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One verdict on top of the page, in plain words, with the first change that helps."""

    kind: str
    word: str
    card: str
    card_title: str
    need: str
    budget: str
    share: str
    at_worst: str
    tip: Counsel | None
    meter: Markup


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """All verdicts on one pipeline; `glance` has a word for each card, None where not judged."""

    anchor: str
    pipeline: str
    title: str
    chosen: str
    bars: tuple[Bar, ...]
    glance: tuple[Bar | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """What the page says about one pipeline."""

    anchor: str
    name: str
    title: str
    about: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]
    verdicts: Table | None
    whys: tuple[Why, ...]
    counsels: tuple[Counsel, ...]
    shares: tuple[tuple[str, Table], ...]
    body: ChapterBody | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChapterBody:
    """The pictures and tables of a pipeline that was estimated; pictures are wide and narrow."""

    need: str
    place: str
    summary: tuple[tuple[str, str], ...]
    budget: Markup
    legend: tuple[tuple[str, str, str], ...]
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
    """Return the page: a sentence and a bar for each verdict, then a chapter for each pipeline."""
    chapters = sections(verdict_rows, estimates)
    blocks = _blocks(chapters)
    named = meta or ReportMeta()
    about = {
        "title": clean(named.title, 120),
        "command": clean(named.command),
        "created": clean(named.created, 80),
        "version": clean(named.version, 40),
    }
    return without_margins(
        open_templates()
        .get_template("report.html.j2")
        .render(
            meta=about,
            headline=plain.headline(verdict_rows),
            blocks=blocks,
            columns=_columns(verdict_rows, cards),
            is_large=len(blocks) > 1 and len(verdict_rows) > _MOST_AT_A_GLANCE,
            helped=_helped(verdict_rows),
            meanings=[
                (kind, plain.verdict(kind), kind.value, text)
                for kind, text in plain.MEANINGS.items()
            ],
            chapters=[
                _chapter(index, chapter, card_offers(cards))
                for index, chapter in enumerate(chapters)
            ],
            verdict_word=plain.verdict,
            effect=plain.effect,
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
    environment.globals["toned"] = _toned
    environment.globals["swatch"] = lambda css: drawn(draw_swatch(css))
    return environment


def _toned(one: Cell) -> str:
    """Return the class of a cell's tone behind its others; what is plain has none."""
    return "" if one.tone is Tone.PLAIN else f" tone-{one.tone}"


def without_margins(page: str) -> str:
    """Return a page without the margins before its tags, which nobody sees: a twentieth of it."""
    return re.sub(r"\n[ \t]+(?=<)", "\n", page)


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


def _blocks(chapters: Sequence[Section]) -> list[Block]:
    cards = dict.fromkeys(verdict.card for chapter in chapters for verdict in chapter.verdicts)
    blocks = []
    for index, chapter in enumerate(chapters):
        if not chapter.verdicts:
            continue
        judged = {verdict.card: _bar(verdict) for verdict in chapter.verdicts}
        title = "" if chapter.estimate is None else clean(chapter.estimate.title, 120)
        blocks.append(
            Block(
                anchor=f"p{index}",
                pipeline=phrases.called(chapter.pipeline, chapter.asked),
                title=title,
                chosen=phrases.differing(chapter.pipeline, chapter.asked),
                bars=tuple(judged.values()),
                glance=tuple(judged.get(card) for card in cards),
            )
        )
    return blocks


def _bar(verdict: Verdict) -> Bar:
    title, need = clean(verdict.card_title, 80), verdict.need
    is_doubtful = verdict.kind is VerdictKind.TIGHT
    return Bar(
        kind=verdict.kind.value,
        word=plain.verdict(verdict.kind),
        card=phrases.name(verdict.card),
        card_title="" if title == phrases.name(verdict.card) else title,
        need=phrases.need(need.expected_bytes),
        budget=phrases.available(verdict.budget_bytes),
        share=plain.share(verdict),
        at_worst=phrases.need(need.high_bytes) if is_doubtful else "",
        tip=next(iter(counsels([verdict])), None),
        meter=drawn(draw_meter(need, verdict.budget_bytes, verdict.kind)),
    )


def _helped(verdicts: Sequence[Verdict]) -> str:
    """Return for how many of the failures there is a change that helps, or nothing."""
    failed = [verdict for verdict in verdicts if verdict.kind.is_failure]
    helped = sum(bool(verdict.advice) for verdict in failed)
    if not helped:
        return ""
    if helped < len(failed):
        return f"For {helped} of the {len(failed)} that do not fit whole a change helps."
    return f"What helps is said beside {'it' if helped == 1 else 'each'}."


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
            (phrases.name(key), phrases.value(chosen)) for key, chosen in told(settings).items()
        ),
        verdicts=check_table(section.verdicts) if section.verdicts else None,
        whys=whys(section.verdicts),
        counsels=_other_counsels(section.verdicts),
        shares=card_tables(section.verdicts),
        body=None if estimate is None else _body(anchor, estimate, offers),
    )


def _other_counsels(verdicts: Sequence[Verdict]) -> tuple[Counsel, ...]:
    """Return the advice that does not stand on top of the page: what is not a card's first."""
    first = {verdict.advice[0] for verdict in verdicts if verdict.advice}
    rest = [
        replace(verdict, advice=tuple(one for one in verdict.advice if one not in first))
        for verdict in verdicts
    ]
    return counsels(rest)


def _about(estimate: Estimate) -> tuple[str, ...]:
    parts = (
        phrases.name(estimate.runtime),
        phrases.compute(estimate.compute_capability),
        estimate_rows.layer_sentence(estimate),
    )
    return tuple(part for part in parts if part)


def _body(anchor: str, estimate: Estimate, offers: Sequence[Offer]) -> ChapterBody:
    sizes = ((f"{anchor}-", WIDTH), (f"{anchor}-narrow-", NARROW))
    least = estimate.need
    return ChapterBody(
        need=plain.need(estimate),
        place=phrases.place(least.phase, least.component),
        summary=estimate_rows.summary(estimate),
        budget=drawn("".join(draw_budget(f"{a}budget", estimate, offers, w) for a, w in sizes)),
        legend=_legend(estimate),
        beyond=_beyond(estimate, offers),
        timeline=drawn(
            "".join(draw_timeline(f"{a}timeline", estimate, offers, w) for a, w in sizes)
        ),
        is_replayed=bool(estimate.timeline),
        components=estimate_rows.component_table(estimate) if estimate.components else None,
        lines=estimate_rows.line_table(estimate),
        phases=estimate_rows.phase_table(estimate) if estimate.phases else None,
        buffers=estimate_rows.buffer_table(estimate),
        published=estimate_rows.published_table(estimate) if estimate.published else None,
        notes=estimate_rows.notes(estimate),
    )


def _legend(estimate: Estimate) -> tuple[tuple[str, str, str], ...]:
    """Return each kind of piece with its plain words and its size, in the order of the picture."""
    sizes: dict[Tone, int] = {}
    for piece in segments(estimate):
        sizes[piece.kind] = sizes.get(piece.kind, 0) + piece.size_bytes
    return tuple((kind, plain.KINDS[kind], phrases.need(size)) for kind, size in sizes.items())


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
    """Return a picture of ours, whose text the element tree has escaped already, or our styles.

    Inside a page a picture needs no word on what it is a picture in.
    """
    from markupsafe import Markup

    inside = picture.replace('<svg xmlns="http://www.w3.org/2000/svg"', "<svg")
    return Markup(inside)  # noqa: S704  # built by ElementTree, never from a stranger's markup
