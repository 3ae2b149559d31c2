"""How the attention kernel decides the peak of SD 1.5 as images grow."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from tools.docs.picture_parts import begin, end, head, sides
from tools.docs.replayed_runs import CAPABILITY, conditions_of, shipped
from vramplan.budget.cuda_context import context_band
from vramplan.catalog import usable_bytes
from vramplan.engines.torch.tape.allocator import CachingAllocator
from vramplan.engines.torch.tape.replay import Replay
from vramplan.report import phrases
from vramplan.report.svg import add, write
from vramplan.units import GIB

_SIDES = range(256, 1409, 128)
_LARGEST = 14 * GIB
_WIDTH, _LEFT, _TOP, _PLOT, _HEIGHT = 880, 70, 82, 560, 300

#: each setting: its colour, what it is, and where its peak is when the image is large
KINDS = {
    "math": ("oom", "attention=math", "all scores stored at once"),
    "sliced": ("offload", "attention=sliced", "a quarter of them at a time"),
    "sdpa": ("weights", "attention=sdpa", "no scores stored; the VAE decides"),
}


def peak_bytes(side: int, attention: str) -> tuple[int, str]:
    """Return the most that is live in a run of that size, and the component it is live in."""
    tape, conditions = conditions_of("sd15", image=(side, side), attention=attention)
    run = Replay(tape, conditions, CachingAllocator())
    run.load()
    run.run()
    top = max(run.trace.marks, key=lambda mark: mark.allocated_peak_bytes)
    return top.allocated_peak_bytes, top.component


def draw() -> str:
    """Return the curves of the three settings, and what two cards offer."""
    context = context_band(shipped().card("rtx-3060-12gb").candidates[0]).expected_bytes
    curves: dict[str, list[tuple[int, int]]] = {}
    for attention in KINDS:
        curve = curves[attention] = []
        for side in _SIDES:
            curve.append((side, context + peak_bytes(side, attention)[0]))
            if curve[-1][1] > _LARGEST:
                break
    title = "The attention kernel decides how large an image can be"
    svg = begin("attention", _WIDTH, _TOP + _HEIGHT + 62, title, _summary(curves))
    said = f"Stable Diffusion 1.5, fp16, compute capability {CAPABILITY}"
    head(svg, title, f"{said}: the most that is live, and the CUDA context")
    _draw_axes(svg)
    clip = add(add(svg, "defs", {}), "clipPath", {"id": "attention-plot"})
    add(clip, "rect", {"x": _LEFT, "y": _TOP, "width": _PLOT, "height": _HEIGHT})
    _draw_cards(svg)
    for attention, curve in curves.items():
        points = "L".join(f"{_x(side):.1f} {_y(size):.1f}" for side, size in curve)
        path = {"d": f"M{points}", "css": f"curve-{attention}", "clip-path": "url(#attention-plot)"}
        add(svg, "path", path)
    _name_curves(svg, curves)
    return end(svg)


def _x(side: float) -> float:
    return _LEFT + (side - _SIDES[0]) / (_SIDES[-1] - _SIDES[0]) * _PLOT


def _y(size_bytes: float) -> float:
    return _TOP + _HEIGHT - size_bytes / _LARGEST * _HEIGHT


def _draw_axes(svg: ET.Element) -> None:
    for number in range(0, 15, 2):
        y = _y(number * GIB)
        css = "grid" if number else "axis"
        add(svg, "path", {"d": f"M{_LEFT} {y:.1f}h{_PLOT}", "css": css})
        write(svg, _LEFT - 8, y + 4, f"{number} GiB", css="s soft", anchor="end")
    for side in _SIDES[::2]:
        write(svg, _x(side), _y(0) + 20, sides(side, side), css="s soft", anchor="middle")


def _draw_cards(svg: ET.Element) -> None:
    for name, words in (("rtx-3060-8gb", "an 8 GB card"), ("rtx-3060-12gb", "a 12 GB card")):
        offer = usable_bytes(shipped().card(name).candidates[0])
        y = _y(offer)
        add(svg, "path", {"d": f"M{_LEFT} {y:.1f}h{_PLOT}", "css": "card-line"})
        said = f"{words} offers {phrases.available(offer)}"
        write(svg, _LEFT + 8, y - 6, said, css="s b card halo")


def _name_curves(svg: ET.Element, curves: dict[str, list[tuple[int, int]]]) -> None:
    """Write beside each curve which setting it is; a curve that leaves the plot is named above."""
    x = _LEFT + _PLOT + 22
    for row, (attention, curve) in enumerate(curves.items()):
        _, name, why = KINDS[attention]
        y = _TOP + 24 + 92 * row
        add(svg, "path", {"d": f"M{x} {y - 4}h22", "css": f"curve-{attention}"})
        write(svg, x + 30, y, name, css="b")
        write(svg, x, y + 20, why, css="s soft")
        at = dict(curve).get(1024)
        said = f"{sides(1024, 1024)}: " + (phrases.need(at) if at else "above 14 GiB")
        write(svg, x, y + 38, said, css="s")


def _summary(curves: dict[str, list[tuple[int, int]]]) -> str:
    parts = []
    for attention, curve in curves.items():
        known = ", ".join(f"{phrases.need(size)} at {side}" for side, size in curve)
        parts.append(f"{KINDS[attention][1]}: {known}.")
    return "Live memory and the CUDA context by the side of a square image. " + " ".join(parts)
