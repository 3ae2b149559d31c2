"""What pipelines need, against what an 8 GB and a 12 GB card offer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from xml.etree import ElementTree as ET

from tools.docs.picture_parts import begin, end, hatched, head, sides
from tools.docs.replayed_runs import CAPABILITY, shipped
from vramplan.ask.library import open_target
from vramplan.budget.verdict import find_budget
from vramplan.catalog.cards import assumed_card
from vramplan.engines.door import engine_of
from vramplan.model import Estimate, SettingValue, VerdictKind
from vramplan.report import phrases
from vramplan.report.budget import segments
from vramplan.report.colour import Tone
from vramplan.report.svg import add, write
from vramplan.units import GIB

CARDS = ("rtx-3060-8gb", "rtx-3060-12gb")

#: from the left: what every run has first, what the allocator could give back last
_ORDER = (
    Tone.CONTEXT, Tone.WEIGHTS, Tone.CACHE, Tone.ACTIVATIONS, Tone.SCRATCH, Tone.OTHER, Tone.SLACK,
)  # fmt: skip
_LEGEND = (
    ("context", "CUDA context"),
    ("weights", "weights"),
    ("cache", "KV cache"),
    ("activations", "activations"),
    ("scratch", "workspace, buffers"),
    ("slack", "allocator slack"),
)
_WIDTH, _LEFT, _PLOT, _ROW, _TOP = 880, 232, 470, 62, 112


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A pipeline at some settings: how a person would say them, and what changes the defaults."""

    pipeline: str
    title: str
    said: str
    changed: Mapping[str, SettingValue]


ROWS = (
    Row(pipeline="sd15", title="Stable Diffusion 1.5", said=f"{sides(512, 512)}, fp16", changed={}),
    Row(
        pipeline="sd15",
        title="Stable Diffusion 1.5",
        said=f"{sides(1280, 1024)}, fp16",
        changed={"image": (1280, 1024)},
    ),
    Row(pipeline="llava:7b", title="LLaVA 7B in Ollama", said="Q4_0, 4,096 tokens", changed={}),
    Row(
        pipeline="llava:7b",
        title="LLaVA 7B in Ollama",
        said="Q4_0, 32,768 tokens",
        changed={"context": 32768},
    ),
    Row(
        pipeline="llava-1.5-7b-hf",
        title="LLaVA 1.5 7B",
        said="Transformers, fp16",
        changed={},
    ),
    Row(pipeline="sdxl", title="SDXL", said=f"{sides(1024, 1024)}, fp16", changed={}),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A row's budget, and its verdict on each card."""

    row: Row
    estimate: Estimate
    verdicts: tuple[VerdictKind, ...]


def draw() -> str:
    """Return a stacked bar for each row, and a line for each card."""
    judged = [_judge(row) for row in ROWS]
    budgets = [find_budget(shipped().card(name).candidates[0], 0, 0) for name in CARDS]
    largest = max(one.estimate.peak.device.high_bytes for one in judged) * 101 // 100
    title = "What fits an 8 GB card, and what a 12 GB card"
    height = _TOP + _ROW * len(judged) + 66
    svg = begin("budgets", _WIDTH, height, title, _summary(judged))
    said = f"RTX 3060, 8 GB and 12 GB (compute capability {CAPABILITY})"
    head(svg, title, f"{said}; the whole run, loading included")
    scale = _PLOT / largest
    bottom = _TOP + _ROW * len(judged) - 8
    for number in range(0, largest // GIB + 1, 2):
        x = _LEFT + number * GIB * scale
        add(svg, "path", {"d": f"M{x:.1f} {_TOP - 8}V{bottom}", "css": "grid"})
        write(svg, x, bottom + 18, f"{number} GiB", css="s soft", anchor="middle")
    for index, one in enumerate(judged):
        _draw_bar(svg, one, _TOP + index * _ROW, scale)
    for name, budget in zip(CARDS, budgets, strict=True):
        x = _LEFT + budget * scale
        add(svg, "path", {"d": f"M{x:.1f} {_TOP - 12}V{bottom}", "css": "card-line"})
        words = f"{_short(name)}: {phrases.available(budget)}"
        write(svg, x, _TOP - 18, words, css="b s card", anchor="middle")
    for index, one in enumerate(judged):
        _draw_need(svg, one, _TOP + index * _ROW, scale)
    _draw_legend(svg, height - 22)
    return end(svg)


def _judge(row: Row) -> Judged:
    job = open_target(row.pipeline).changed(row.changed)
    engine = engine_of(job.pipeline)
    found = engine.estimate(job, assumed_card(CAPABILITY))
    cards = [
        replace(shipped().card(name).candidates[0], compute_capability=CAPABILITY) for name in CARDS
    ]
    known = [engine.judge(job, card, find_budget(card, 0, 0)).kind for card in cards]
    return Judged(row=row, estimate=found, verdicts=tuple(known))


def _draw_bar(svg: ET.Element, one: Judged, top: int, scale: float) -> None:
    write(svg, 24, top + 16, one.row.title, css="b")
    write(svg, 24, top + 33, one.row.said, css="soft s")
    sizes = dict.fromkeys(_ORDER, 0)
    for piece in segments(one.estimate):
        sizes[piece.kind] += piece.size_bytes
    x = float(_LEFT)
    for kind, size in sizes.items():
        width = size * scale
        fill = hatched("budgets") if kind is Tone.SLACK else {"css": str(kind)}
        if width:
            add(svg, "rect", {"x": x, "y": top, "width": width, "height": 26, **fill})
        x += width


def _draw_need(svg: ET.Element, one: Judged, top: int, scale: float) -> None:
    """Draw the need with its band below the bar, and the verdicts at the right."""
    need = one.estimate.need.band
    low, middle, high = (
        _LEFT + size * scale for size in (need.low_bytes, need.expected_bytes, need.high_bytes)
    )
    y = top + 33
    path = f"M{low:.1f} {y - 4}v8M{low:.1f} {y}H{high:.1f}M{high:.1f} {y - 4}v8"
    add(svg, "path", {"d": path, "css": "whisker"})
    add(svg, "circle", {"cx": middle, "cy": y, "r": 3.5, "css": "text"})
    words = f"needs {phrases.need(need.expected_bytes)}"
    is_late = high > _LEFT + _PLOT - 110
    x, anchor = (low - 8, "end") if is_late else (high + 8, "start")
    write(svg, x, y + 4, words, css="s halo", anchor=anchor)
    for line, (card, kind) in enumerate(zip(CARDS, one.verdicts, strict=True)):
        left = _LEFT + _PLOT + 24
        write(svg, left, top + 12 + 18 * line, _short(card), css="s soft")
        write(svg, left + 52, top + 12 + 18 * line, phrases.verdict(kind), css=f"b {kind}")


def _short(card: str) -> str:
    return card.removeprefix("rtx-3060-").replace("gb", " GB")


def _draw_legend(svg: ET.Element, y: int) -> None:
    x = 24.0
    for css, words in _LEGEND:
        shape = {"x": x, "y": y - 10, "width": 11, "height": 11, "rx": 2}
        add(svg, "rect", {**shape, **(hatched("budgets") if css == "slack" else {"css": css})})
        write(svg, x + 16, y, words, css="s soft")
        x += 30 + 6.3 * len(words)
    add(svg, "path", {"d": f"M{x:.1f} {y - 8}v8m0 -4h22m0 -4v8", "css": "whisker"})
    write(svg, x + 28, y, "the need, low to high", css="s soft")


def _summary(judged: list[Judged]) -> str:
    return " ".join(
        f"{one.row.title} ({one.row.said}) needs "
        f"{phrases.need(one.estimate.need.band.expected_bytes)}: "
        + ", ".join(
            f"{kind.value} on {_short(card)}"
            for card, kind in zip(CARDS, one.verdicts, strict=True)
        )
        + "."
        for one in judged
    )
