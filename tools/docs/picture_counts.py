"""What each tool counts: boxes in boxes, with the figures of one SD 1.5 image on a 12 GB card."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from tools.docs.picture_parts import begin, end, hatched, head, sides
from tools.docs.replayed_runs import replay_steps, shipped
from vramplan.budget.cuda_context import context_band
from vramplan.report import phrases
from vramplan.report.svg import add, write
from vramplan.units import MIB

CARD = "rtx-3060-12gb"
#: an example: a desktop, a browser
OTHERS_BYTES = 600 * MIB
_WIDTH, _HEIGHT = 880, 440


def draw() -> str:
    """Return the nested boxes, from the card's total to live tensors."""
    steps = replay_steps("sd15")
    live = max(step.allocated_bytes for step in steps)
    held = max(step.reserved_bytes for step in steps)
    context = context_band(shipped().card(CARD).candidates[0]).expected_bytes
    card = shipped().card(CARD).candidates[0]
    process = held + context
    used = process + OTHERS_BYTES
    free = card.total_bytes - card.reserved_bytes - used
    title = "What each tool counts"
    summary = (
        f"Allocated {phrases.need(live)} lies inside reserved {phrases.need(held)}; reserved and "
        f"the CUDA context make the process, {phrases.need(process)}; the process and the other "
        f"processes make what nvidia-smi calls used, {phrases.need(used)}; that, what is free and "
        f"what the system keeps make the card's total, {phrases.nearest(card.total_bytes)}."
    )
    svg = begin("counts", _WIDTH, _HEIGHT, title, summary)
    said = (
        f"One Stable Diffusion 1.5 image, {sides(512, 512)} fp16, at its peak on an RTX 3060 12GB"
    )
    head(svg, title, said)
    _box(svg, (24, 72, 832, 344), "box", "total", phrases.nearest(card.total_bytes))
    write(svg, 196, 96, "the card, as NVML reports it", css="s soft")
    _box(svg, (706, 110, 136, 200), "frame", "free", phrases.available(free))
    _box(svg, (706, 324, 136, 78), "frame", "system reserved", phrases.nearest(card.reserved_bytes))
    write(svg, 720, 381, "kept by the driver", css="s soft")
    _box(svg, (38, 110, 656, 292), "rule", "device used", phrases.need(used))
    write(svg, 246, 134, "nvidia-smi, the line of the card", css="s soft")
    _box(svg, (566, 148, 114, 240), "frame", "others", phrases.need(OTHERS_BYTES))
    for row, words in enumerate(("a desktop and", "a browser, for", "example")):
        write(svg, 580, 212 + 16 * row, words, css="s soft")
    _box(svg, (52, 148, 502, 240), "rule", "process", phrases.need(process))
    write(svg, 222, 172, "nvidia-smi, the line of the process", css="s soft")
    _box(svg, (422, 186, 118, 188), "context", "", "")
    for row, (words, css) in enumerate(
        (
            ("CUDA context", "b"),
            (f"about {phrases.need(context)}", "s"),
            ("code of driver", "s"),
            ("and libraries", "s"),
        )
    ):
        write(svg, 481, 262 + 18 * row, words, css=f"{css} on-context", anchor="middle")
    shape = {"x": 66, "y": 186, "width": 344, "height": 188, "rx": 6}
    add(svg, "rect", {**shape, **hatched("counts")})
    write(svg, 80, 210, "reserved", css="b halo-slack")
    write(svg, 148, 210, phrases.need(held), css="halo-slack")
    write(svg, 228, 210, "memory_reserved", css="mono s halo-slack")
    for row, words in enumerate(("allocator slack", phrases.need(held - live))):
        write(svg, 338, 288 + 17 * row, words, css="s halo-slack", anchor="middle")
    shape = {"x": 80, "y": 222, "width": 192, "height": 140, "rx": 6}
    add(svg, "rect", {**shape, "css": "activations"})
    write(svg, 94, 246, "allocated", css="b on-activations")
    write(svg, 166, 246, phrases.need(live), css="on-activations")
    lines = ("memory_allocated", "", "live tensors: weights,", "activations, scratch,", "KV cache")
    for row, words in enumerate(lines):
        css = "mono s on-activations" if row == 0 else "s on-activations"
        if words:
            write(svg, 94, 268 + 16 * row, words, css=css)
    return end(svg)


def _box(svg: ET.Element, place: tuple[int, int, int, int], css: str, name: str, size: str) -> None:
    """Draw a box with its name and its size in the upper left corner."""
    x, y, width, height = place
    add(svg, "rect", {"x": x, "y": y, "width": width, "height": height, "rx": 7, "css": css})
    if name:
        write(svg, x + 14, y + 24, name, css="b")
        is_narrow = width < 200
        left, top = (x + 14, y + 42) if is_narrow else (x + 22 + 8.2 * len(name), y + 24)
        write(svg, left, top, size, css="")
