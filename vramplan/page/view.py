"""Verdicts, budgets and plans in the words and pictures that the page shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vramplan.ask.knobs import Knob
from vramplan.budget.plan import Option, Plan
from vramplan.model import Advice, Estimate, Pipeline, Settings, Verdict
from vramplan.page.bars import draw_bar, peak_pieces, rows_of
from vramplan.report import estimate_rows, phrases, plain
from vramplan.report import plan as plan_words
from vramplan.report.budget import Offer
from vramplan.report.colour import SIGNS, Tone
from vramplan.report.rows import NotedTable, Table
from vramplan.report.serial import Json
from vramplan.report.svg import NARROW, draw_meter, draw_swatch
from vramplan.report.text import clean
from vramplan.report.timeline import draw_timeline
from vramplan.report.trade_off import times

#: a card of this many times the peak would squeeze the bar of it into a corner
_FARTHEST = 4


def model_view(pipeline: Pipeline) -> dict[str, Json]:
    """Return what is said of a model; where its file is, is not."""
    return {
        "name": pipeline.name,
        "title": clean(pipeline.title, 120),
        "summary": clean(pipeline.summary, 400),
        "runtime": phrases.name(pipeline.runtime),
    }


def knob_view(knob: Knob) -> dict[str, Json]:
    """Return a knob: what it is, and every value that it is moved to."""
    stops: list[Json] = [*knob.stops]
    return {
        "key": knob.key,
        "label": knob.key.replace("_", " "),
        "help": knob.help,
        "kind": knob.kind,
        "value": knob.value,
        "default": knob.default,
        "words": [*knob.words],
        "stops": stops,
        "stop": knob.stops.index(knob.value) if knob.value in knob.stops else None,
        "last_stop": len(knob.stops) - 1,
        "is_first": knob.is_first,
    }


def verdict_view(verdict: Verdict) -> dict[str, Json]:
    """Return one card's verdict."""
    return {
        "card": verdict.card,
        "title": clean(verdict.card_title, 80),
        "kind": verdict.kind.value,
        "sign": SIGNS[verdict.kind],
        "word": plain.WORDS[verdict.kind],
        "meaning": plain.MEANINGS[verdict.kind],
        "need": phrases.need(verdict.need.expected_bytes),
        "spread": phrases.spread(verdict.need),
        "budget": phrases.available(verdict.budget_bytes),
        "room": f"{_room(verdict)} {phrases.headroom_of(verdict)}".rstrip(),
        "risk": phrases.risk(verdict),
        "judged": phrases.judged(verdict),
        "place": phrases.place(verdict.peak_phase, verdict.peak_component),
        "layers": None if verdict.layers is None else verdict.layers.in_words(),
        "reason": clean(verdict.reason),
        "meter": draw_meter(verdict.need, verdict.budget_bytes, verdict.kind),
    }


def _room(verdict: Verdict) -> str:
    """Return how much is left of a card, or is wanting, in words."""
    left = verdict.headroom_bytes
    if left < 0:
        return f"{phrases.need(-left)} too little"
    return f"{phrases.available(left)} to spare"


def budget_view(estimate: Estimate, verdict: Verdict) -> dict[str, Json]:
    """Return what is on the card at the peak: one bar of all of it, and one for each component."""
    peak = estimate.peak
    pieces = peak_pieces(estimate)
    used = max(peak.device.expected_bytes, sum(piece.size_bytes for piece in pieces))
    limit = verdict.budget_bytes
    is_near = limit <= _FARTHEST * used
    rows = rows_of(estimate)
    widest = max((row.size_bytes for row in rows), default=1)
    return {
        "used": phrases.need(peak.device.expected_bytes),
        "when": phrases.of_what(estimate),
        "place": phrases.place(peak.phase, peak.component),
        "offer": phrases.available(limit),
        "is_marked": is_near,
        "bar": draw_bar(pieces, max(used, limit), limit_bytes=limit)
        if is_near
        else draw_bar(pieces, used),
        "legend": [
            {
                "swatch": draw_swatch(f"fill-{piece.tone}"),
                "label": plain.KINDS[piece.tone],
                "size": phrases.need(piece.size_bytes),
            }
            for piece in pieces
        ],
        "rows": [
            {
                "name": row.name,
                "size": phrases.need(row.size_bytes),
                "bar": draw_bar(row.pieces, widest),
                "parts": ", ".join(
                    f"{label} {phrases.need(size)}" for label, size in row.sizes.items()
                ),
            }
            for row in rows
        ],
    }


def run_view(estimate: Estimate, verdict: Verdict) -> dict[str, Json]:
    """Return the run step by step, and where it is tightest."""
    offer = Offer(label=phrases.name(verdict.card), budget_bytes=verdict.budget_bytes)
    return {
        "timeline": draw_timeline("timeline", estimate, [offer]),
        "narrow": draw_timeline("narrow", estimate, [offer], NARROW),
        "summary": [
            {"label": label, "text": text} for label, text in estimate_rows.summary(estimate)
        ],
        "swatches": [
            {"swatch": draw_swatch(css), "label": label}
            for css, label in (
                ("allocated", "in use"),
                ("reserved", "held in reserve"),
                ("base", "CUDA context"),
            )
        ],
    }


def detail_view(estimate: Estimate) -> list[Json]:
    """Return every figure as tables, each with its title and its footnotes."""
    found: list[Json] = []
    if estimate.components:
        found.append(_table("Components", estimate_rows.component_table(estimate)))
    found.append(_noted("Line by line", estimate_rows.line_table(estimate)))
    if estimate.phases:
        found.append(_table("Phase by phase", estimate_rows.phase_table(estimate)))
    buffers = estimate_rows.buffer_table(estimate)
    if buffers is not None:
        found.append(_table("The engine's buffers", buffers))
    return found


def _noted(title: str, noted: NotedTable) -> dict[str, Json]:
    return {**_table(title, noted.table), "notes": [clean(note) for note in noted.notes]}


def _table(title: str, table: Table) -> dict[str, Json]:
    return {
        "title": title,
        "columns": [{"header": one.header, "is_figure": one.is_figure} for one in table.columns],
        "rows": [
            [{"text": one.text, "detail": one.detail, "tone": _tone(one.tone)} for one in row]
            for row in table.rows
        ],
        "notes": [],
    }


def _tone(tone: Tone) -> str:
    return tone.value if tone in (Tone.DIM, Tone.STRONG) else ""


# ----------------------------------------------------------------------------------- what to change
def plan_view(plan: Plan, link: Callable[[Settings], str]) -> dict[str, Json]:
    """Return a plan; `link` gives the address of the page with some settings changed."""
    has_times = any(plan.slowdown(option) is not None for option in plan.options)
    smallest = plan_words.smallest_sentence(plan)
    return {
        "kind": plan.verdict.kind.value,
        "is_needed": plan.is_needed,
        "summary": plan_words.summary(plan),
        "options": [option_view(plan, option, link) for option in plan.options],
        "everything": (
            option_view(plan, plan.everything, link)
            if plan.everything is not None and not plan.options
            else None
        ),
        "beside": [_advice(advice) for advice in plan.beside],
        "largest": [
            {
                "name": name,
                "value": None if found is None else phrases.value(found.value),
                "words": plan_words.largest_words(name, found),
                "link": None if found is None else link({name: found.value}),
            }
            for name, found in plan.largest.items()
        ],
        "smallest": smallest,
        "notes": [
            *(f"not tried: {clean(left.line)} ({clean(left.why)})" for left in plan.left_out),
            *([plan_words.TIME_NOTE] if has_times else []),
        ],
    }


def option_view(plan: Plan, option: Option, link: Callable[[Settings], str]) -> dict[str, Json]:
    """Return one way to make it fit."""
    kind = option.verdict.kind
    return {
        "settings": phrases.settings(option.settings),
        "link": link(option.settings),
        "kind": kind.value,
        "sign": SIGNS[kind],
        "need": phrases.need(option.need_bytes),
        "saves": phrases.nearest(plan.saving_bytes(option)),
        "room": _room(option.verdict),
        "time": times(plan.slowdown(option)),
        "cost": clean(option.cost),
        "lines": [clean(change.line) for change in option.changes],
    }


def _advice(advice: Advice) -> dict[str, Json]:
    return {
        "change": clean(advice.change),
        "effect": clean(advice.effect),
        "cost": clean(advice.cost),
    }


def notes_view(estimate: Estimate, remarks: Sequence[str]) -> list[Json]:
    """Return what should be known of how it was understood and reckoned."""
    return [*(clean(remark) for remark in remarks), *estimate_rows.notes(estimate)]
