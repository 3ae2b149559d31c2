"""Two timelines: the memory of one SD 1.5 image, and of one that is short of memory."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from picture_parts import begin, end, hatched, head
from picture_timeline import (
    Frame,
    Stretch,
    area,
    draw_axis,
    draw_strips,
    lay_out,
    line,
    place,
)
from replayed_runs import CAPABILITY, Step, conditions_of, replay_steps, shipped
from vramplan.catalog import usable_bytes
from vramplan.estimate.context import context_band
from vramplan.estimate.least_limit import find_least_limit
from vramplan.report import phrases
from vramplan.report.svg import add, write
from vramplan.units import GIB

_WIDTH = 880
_LARGE = (1280, 1024)


def draw_sd15() -> str:
    """Return the timeline of one SD 1.5 image: allocated, reserved, and what nvidia-smi shows."""
    identity = "sd15-timeline"
    steps = replay_steps("sd15")
    context = context_band().expected_bytes
    live = max(steps, key=lambda step: step.allocated_bytes)
    held = max(step.reserved_bytes for step in steps)
    summary = (
        f"Memory from loading to the image. Weights take {phrases.need(live.weights_bytes)} all the "
        f"time. The UNet's steps add little; in decode_image the VAE's decoder lifts allocated "
        f"memory to {phrases.need(live.allocated_bytes)}. Reserved memory follows it up to "
        f"{phrases.need(held)} and does not come down. nvidia-smi shows {phrases.need(held + context)}, "
        "because it counts the CUDA context too."
    )
    svg = begin(identity, _WIDTH, 478, "The memory of one Stable Diffusion 1.5 image", summary)
    head(
        svg,
        "The memory of one Stable Diffusion 1.5 image",
        f"512×512, fp16, 50 steps, with safety checker; replayed for compute capability {CAPABILITY}",
    )
    frame = Frame(left=70, top=78, width=630, height=320, largest_bytes=_above(held + context))
    stretches = lay_out(steps, frame)
    draw_axis(svg, frame, GIB)
    _fill(svg, stretches, frame, context, identity)
    _label_ends(svg, steps[-1], frame, context)
    x, y = place(stretches, live), frame.y(live.allocated_bytes)
    add(svg, "circle", {"cx": x, "cy": y, "r": 4.5, "css": "dot"})
    write(svg, x - 10, y - 24, "allocated peak", css="b halo", anchor="end")
    write(svg, x - 10, y - 8, phrases.need(live.allocated_bytes), css="b halo", anchor="end")
    draw_strips(svg, stretches, frame, {"denoise": " (50 steps, all alike)"})
    return end(svg)


def _above(size_bytes: int) -> int:
    return size_bytes * 107 // 100


def _fill(
    svg: ET.Element,
    stretches: Sequence[Stretch],
    frame: Frame,
    context: int,
    identity: str,
) -> None:
    """Stack from the outside in: context, slack, activations, weights."""
    shapes: tuple[tuple[str, dict[str, float | str]], ...] = (
        (area(stretches, frame, lambda s: s.reserved_bytes, context), {"css": "context"}),
        (area(stretches, frame, lambda s: s.reserved_bytes), hatched(identity)),
        (area(stretches, frame, lambda s: s.allocated_bytes), {"css": "activations"}),
        (area(stretches, frame, lambda s: s.weights_bytes), {"css": "weights"}),
    )
    for outline, shape in shapes:
        add(svg, "path", {"d": outline, **shape})


def _label_ends(svg: ET.Element, last: Step, frame: Frame, context: int) -> None:
    """Say at the right edge what each layer is, and which tool shows its upper edge."""
    held, live = last.reserved_bytes, last.allocated_bytes
    rows = (
        ("CUDA context", f"about {phrases.need(context)}", held + context / 2, "context"),
        ("allocator slack", "kept for the next request", (held + live) / 2, "slack"),
        ("activations, workspace", "live for a moment", live + 0.16 * GIB, "activations"),
        ("weights", phrases.need(last.weights_bytes), last.weights_bytes * 0.55, "weights"),
    )
    x = frame.right + 12
    for name, below, size, css in rows:
        y = frame.y(size)
        add(svg, "rect", {"x": x, "y": y - 9, "width": 10, "height": 10, "rx": 2, "css": css})
        write(svg, x + 16, y, name, css="b s")
        write(svg, x + 16, y + 15, below, css="s soft")


def draw_least_limit() -> str:
    """Return one large image twice: on a card with room, and under its least limit."""
    identity = "least-limit"
    tape, conditions = conditions_of("sd15", image=_LARGE)
    roomy = replay_steps("sd15", image=_LARGE)
    live = max(step.allocated_bytes for step in roomy)
    held = max(step.reserved_bytes for step in roomy)
    least = find_least_limit(
        tape, conditions, allocated_peak_bytes=live, reserved_peak_bytes=held
    ).limit_bytes
    short = replay_steps("sd15", image=_LARGE, limit_bytes=least)
    context = context_band().expected_bytes
    card = shipped().card("rtx-3070").candidates[0]
    offer = usable_bytes(card)
    title = "Reserved is not needed: the same run with room and without"
    summary = (
        f"With room the run reserves {phrases.need(held)}, more than an 8 GB card has. Under a limit "
        f"of {phrases.need(least)} it completes as well, because the allocator gives its cache back "
        f"and asks again; {phrases.need(live)} of that are live tensors."
    )
    svg = begin(identity, _WIDTH, 478, title, summary)
    head(
        svg,
        title,
        f"Stable Diffusion 1.5, {_LARGE[0]}×{_LARGE[1]}, fp16; the CUDA context stands below each curve",
    )
    frame = Frame(left=70, top=78, width=610, height=320, largest_bytes=_above(held + context))
    stretches = lay_out(roomy, frame)
    draw_axis(svg, frame, 2 * GIB)
    outline = area(stretches, frame, lambda s: s.reserved_bytes, context)
    add(svg, "path", {"d": outline, **hatched(identity)})
    outline = area(stretches, frame, lambda s: s.allocated_bytes, context)
    add(svg, "path", {"d": outline, "css": "activations"})
    outline = area(stretches, frame, lambda s: s.weights_bytes, context)
    add(svg, "path", {"d": outline, "css": "weights"})
    shape = {"x": frame.left, "width": frame.width, "y": frame.y(context)}
    add(svg, "rect", {**shape, "height": frame.bottom - frame.y(context), "css": "context"})
    limited = line(lay_out(short, frame), frame, lambda s: s.reserved_bytes, context)
    add(svg, "path", {"d": limited, "css": "limit-line"})
    y = frame.y(offer)
    add(svg, "path", {"d": f"M{frame.left} {y:.1f}H{frame.right + 8}", "css": "card-line"})
    notes = (
        (held + context, "with room", f"reserves {phrases.need(held)}", "b s"),
        (offer, "an 8 GB card", f"offers {phrases.available(offer)}", "b s card"),
        (least + context, "least limit", f"{phrases.need(least)} + context", "b s"),
        (live + context, "live at the peak", f"{phrases.need(live)} + context", "b s"),
    )
    _write_apart(svg, frame, notes)
    draw_strips(svg, stretches, frame, {})
    return end(svg)


def _write_apart(
    svg: ET.Element, frame: Frame, notes: Sequence[tuple[int, str, str, str]]
) -> None:
    """Write notes beside the heights they speak of, none over another."""
    lowest = frame.top - 14.0
    for size, name, below, css in notes:
        y = max(frame.y(size) + 4, lowest + 38)
        add(svg, "path", {"d": f"M{frame.right} {frame.y(size):.1f}L{frame.right + 14} {y - 4:.1f}",
                          "css": "axis"})  # fmt: skip
        write(svg, frame.right + 18, y, name, css=css)
        write(svg, frame.right + 18, y + 15, below, css="s soft")
        lowest = y
