"""Two timelines: the memory of one SD 1.5 image, and of one that is short of memory."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from tools.docs.picture_parts import begin, end, hatched, head, sides
from tools.docs.picture_timeline import (
    Frame,
    Stretch,
    area,
    draw_axis,
    draw_strips,
    lay_out,
    line,
    place,
    write_apart,
)
from tools.docs.replayed_runs import CAPABILITY, Step, conditions_of, replay_steps, shipped
from vramplan.budget.cuda_context import context_band
from vramplan.catalog import usable_bytes
from vramplan.engines.torch.least_limit import find_least_limit
from vramplan.engines.torch.tape.rehearse import rehearse
from vramplan.report import phrases
from vramplan.report.svg import add, write
from vramplan.units import GIB

_WIDTH = 880
_LARGE = (1280, 1024)

#: how wide each part of the run is drawn, in shares
_ROOM = {
    ("load", "safety_checker"): 60,
    ("load", "text_encoder"): 38,
    ("load", "unet"): 66,
    ("load", "vae"): 34,
    ("encode_prompt", "text_encoder"): 132,
    ("denoise", "unet"): 190,
    ("decode_image", "vae.decoder"): 120,
    ("decode_image", "safety_checker"): 112,
}


def draw_sd15() -> str:
    """Return the timeline of one SD 1.5 image: allocated, reserved, and what nvidia-smi shows."""
    identity = "sd15-timeline"
    steps = replay_steps("sd15")
    context = context_band(shipped().card("rtx-3060-12gb").candidates[0]).expected_bytes
    live = max(steps, key=lambda step: step.allocated_bytes)
    held = max(step.reserved_bytes for step in steps)
    shown = phrases.need(held + context)
    title = "The memory of one Stable Diffusion 1.5 image"
    summary = (
        f"Memory from loading to the image. Weights take {phrases.need(live.weights_bytes)} all "
        f"the time. The UNet's steps add little; in decode_image the VAE's decoder lifts allocated "
        f"memory to {phrases.need(live.allocated_bytes)}. Reserved memory follows it up to "
        f"{phrases.need(held)} and does not come down. nvidia-smi shows {shown}, because it counts "
        "the CUDA context too."
    )
    svg = begin(identity, _WIDTH, 478, title, summary)
    said = f"{sides(512, 512)}, fp16, 50 steps, with safety checker"
    head(svg, title, f"{said}; replayed for compute capability {CAPABILITY}")
    frame = Frame(left=70, top=78, width=630, height=320, largest_bytes=_above(held + context))
    stretches = lay_out(steps, frame, _ROOM)
    draw_axis(svg, frame, GIB)
    _fill(svg, stretches, frame, context, identity)
    _name_areas(svg, stretches, steps[-1], frame, context)
    last = steps[-1].allocated_bytes
    notes = (
        (held + context, "nvidia-smi shows", shown, "b s"),
        (held, "reserved", phrases.need(held), "b s"),
        (last, "allocated", f"{phrases.need(last)} again", "b s"),
    )
    write_apart(svg, frame, notes)
    x, y = place(stretches, live), frame.y(live.allocated_bytes)
    add(svg, "circle", {"cx": x, "cy": y, "r": 4.5, "css": "dot"})
    write(svg, x - 12, y - 74, "allocated peak", css="b halo", anchor="end")
    write(svg, x - 12, y - 58, phrases.need(live.allocated_bytes), css="b halo", anchor="end")
    add(svg, "path", {"d": f"M{x - 8:.1f} {y - 56:.1f}L{x - 2:.1f} {y - 7:.1f}", "css": "axis"})
    draw_strips(svg, stretches, frame, {"denoise": " · 50 steps"})
    return end(svg)


def _above(size_bytes: int) -> int:
    return size_bytes * 107 // 100


def _fill(
    svg: ET.Element, stretches: Sequence[Stretch], frame: Frame, context: int, identity: str
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


def _name_areas(
    svg: ET.Element, stretches: Sequence[Stretch], last: Step, frame: Frame, context: int
) -> None:
    """Write into each area what it is."""
    middle = (frame.left + frame.right) / 2 + 60
    y = frame.y(last.weights_bytes / 2)
    write(svg, middle, y, "weights", css="b on-weights", anchor="middle")
    said = phrases.need(last.weights_bytes)
    write(svg, middle, y + 17, said, css="s on-weights", anchor="middle")
    tail = stretches[-1]
    x = tail.left + tail.width / 2
    y = frame.y(last.reserved_bytes + context / 2) + 4
    write(svg, x, y, "CUDA context", css="s b on-context", anchor="middle")
    y = frame.y((last.reserved_bytes + last.allocated_bytes) / 2)
    write(svg, x, y, "allocator slack", css="s b halo-slack", anchor="middle")
    write(svg, x, y + 15, "kept for reuse", css="s halo-slack", anchor="middle")


def draw_least_limit() -> str:
    """Return one large image twice: on a card with room, and under its least limit."""
    tape, conditions = conditions_of("sd15", image=_LARGE)
    roomy = replay_steps("sd15", image=_LARGE)
    live = max(step.allocated_bytes for step in roomy)
    held = max(step.reserved_bytes for step in roomy)
    least = find_least_limit(rehearse(tape, conditions)).limit_bytes
    short = replay_steps("sd15", image=_LARGE, limit_bytes=least)
    context = context_band(shipped().card("rtx-3060-12gb").candidates[0]).expected_bytes
    offer = usable_bytes(shipped().card("rtx-3060-8gb").candidates[0])
    title = "What a run reserves is not what it needs"
    summary = (
        f"With room the run reserves {phrases.need(held)}; with the CUDA context that is more than "
        f"an 8 GB card offers, {phrases.available(offer)}. Under a limit of {phrases.need(least)} "
        "it completes as well, because the allocator gives its cache back and asks again. At the "
        f"peak {phrases.need(live)} are live."
    )
    svg = begin("least-limit", _WIDTH, 478, title, summary)
    said = f"Stable Diffusion 1.5, {sides(*_LARGE)}, fp16"
    head(svg, title, f"{said}: the same run on a card with room, and under a limit")
    frame = Frame(left=70, top=78, width=610, height=320, largest_bytes=_above(held + context))
    stretches = lay_out(roomy, frame, _ROOM)
    draw_axis(svg, frame, 2 * GIB)
    _fill_above_context(svg, stretches, frame, context)
    limited = line(lay_out(short, frame, _ROOM), frame, lambda s: s.reserved_bytes, context)
    add(svg, "path", {"d": limited, "css": "limit-line"})
    y = frame.y(offer)
    add(svg, "path", {"d": f"M{frame.left} {y:.1f}H{frame.right}", "css": "card-line"})
    notes = (
        (held + context, "with room", f"reserves {phrases.need(held)}", "b s"),
        (offer, "an 8 GB card", f"offers {phrases.available(offer)}", "b s card"),
        (least + context, "least limit", f"{phrases.need(least)} + context", "b s"),
        (live + context, "live at the peak", f"{phrases.need(live)} + context", "b s"),
    )
    write_apart(svg, frame, notes)
    draw_strips(svg, stretches, frame, {})
    return end(svg)


def _fill_above_context(
    svg: ET.Element, stretches: Sequence[Stretch], frame: Frame, context: int
) -> None:
    """Stack from the outside in, with the context at the bottom: a card's line counts it too."""
    shapes: tuple[tuple[str, dict[str, float | str]], ...] = (
        (area(stretches, frame, lambda s: s.reserved_bytes, context), hatched("least-limit")),
        (area(stretches, frame, lambda s: s.allocated_bytes, context), {"css": "activations"}),
        (area(stretches, frame, lambda s: s.weights_bytes, context), {"css": "weights"}),
        (area(stretches, frame, lambda _: 0, context), {"css": "context"}),
    )
    for outline, shape in shapes:
        add(svg, "path", {"d": outline, **shape})
    write(svg, frame.left + 12, frame.y(context / 2) + 4, "CUDA context", css="s on-context")
    middle = (frame.left + frame.right) / 2
    y = frame.y(context + stretches[-1].steps[-1].weights_bytes / 2)
    write(svg, middle, y, "weights", css="b on-weights", anchor="middle")
