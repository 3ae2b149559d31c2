"""How a tape works: recorded once without data, written as expressions, replayed at any size."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from tools.docs.picture_parts import begin, end, head, sides
from tools.docs.replayed_runs import CAPABILITY, open_tape, pipeline_of, replay_steps
from vramplan.engines.torch.convolution_workspace import convolution_scratch
from vramplan.engines.torch.tape.expressions import evaluate
from vramplan.engines.torch.tape.format import Variant
from vramplan.report import phrases
from vramplan.report.svg import add, write
from vramplan.units import GIB, MIB

_WIDTH, _HEIGHT, _TOP = 880, 420, 76
_SIDES = (512, 768, 1024)
_SHOWN = 11
#: entries that a step of the curve stands for: the highest of them is drawn
_BUCKET = 4

#: the code that is run; in the real thing the arguments are the catalogue's
_CODE = (
    ("with", 'torch.device("meta"):'),
    ("", "  vae = AutoencoderKL(…)"),
    ("", ""),
    ("with", "Device():"),
    ("", "  vae.decode(latents)"),
)


def draw() -> str:
    """Return the three panels."""
    variant = _decoder()
    rows, peak_row = _excerpt(variant)
    title = "A tape: recorded once, replayed at any size"
    summary = (
        "Left: the real code runs on tensors without data. Middle: a part of the tape of the VAE's "
        "decoder, around its peak: " + "; ".join(f"{verb} {size}" for verb, size, _ in rows) + ". "
        "Right: the same entries replayed give the decoder's memory at three image sizes."
    )
    svg = begin("tape", _WIDTH, _HEIGHT, title, summary)
    head(svg, title, "Stable Diffusion's VAE decoder at fp16; h and w are the latents' sides")
    _panel(svg, 24, 226, "1  record, once", "torch on a CPU, no weights")
    _panel(svg, 276, 288, "2  a tape", "around the decoder's peak")
    _panel(svg, 590, 266, "3  replay, anywhere", "pure Python, milliseconds")
    _draw_code(svg, 40, _TOP + 66)
    _draw_entries(svg, 292, _TOP + 66, rows, peak_row)
    _draw_curves(svg, 604, _TOP + 62)
    for x in (250, 564):
        add(svg, "path", {"d": f"M{x + 4} {_TOP + 150}h16m-6 -6l6 6l-6 6", "css": "arrow"})
    return end(svg)


def _decoder() -> Variant:
    tape = open_tape(pipeline_of("sd15-vae"))
    wanted = {"vae_kernel": "efficient", "vae_width": "16"}
    return next(
        variant
        for variant in tape.routines["vae.decoder"]
        if variant.condition == "(n==1)"
        and all(value in variant.when.get(key, (value,)) for key, value in wanted.items())
    )


def _excerpt(variant: Variant) -> tuple[list[tuple[str, str, str]], int]:
    """Return the entries around the peak: what is done, its expression, its size at 512x512."""
    dims = {"n": 1, "h": 64, "w": 64}
    sizes = [evaluate(text, dims) for text in variant.sizes]
    scratch = convolution_scratch(CAPABILITY, 2).expected
    rows: list[tuple[str, str, str]] = []
    slots: list[int] = []
    live, most, peak = 0, 0, 0
    for op in variant.plain_code:
        extra = 0
        if isinstance(op, int) and op >= 0:
            slots.append(op)
            live += sizes[op]
            rows.append(("allocate", variant.sizes[op], phrases.need(sizes[op])))
        elif isinstance(op, int):
            size = slots[-op - 1]
            live -= sizes[size]
            rows.append(("free", variant.sizes[size], phrases.need(sizes[size])))
        elif isinstance(op, list) and op[0] == "w":
            extra = scratch(str(op[1]), tuple(sizes[one] for one in op[2:]))
            rows.append(("scratch", "for a convolution", phrases.need(extra)))
        else:
            continue
        if live + extra > most:
            most, peak = live + extra, len(rows) - 1
    first = peak - _SHOWN + 4
    return rows[first : first + _SHOWN], peak - first


def _panel(svg: ET.Element, x: int, width: int, title: str, below: str) -> None:
    shape = {"x": x, "y": _TOP, "width": width, "height": _HEIGHT - _TOP - 22, "rx": 8}
    add(svg, "rect", {**shape, "css": "box"})
    write(svg, x + 16, _TOP + 26, title, css="b")
    write(svg, x + 16, _TOP + 43, below, css="s soft")


def _draw_code(svg: ET.Element, x: int, y: int) -> None:
    for row, (word, rest) in enumerate(_CODE):
        if word:
            write(svg, x, y + 16 + 19 * row, word, css="mono s b")
        indent = 7.3 * (5 if word else 2)
        write(svg, x + indent, y + 16 + 19 * row, rest.strip(), css="mono s")
    notes = (
        "The pipeline's own code runs,",
        "with shapes and no data. Each",
        "tensor's birth and death is",
        "written down, at several sizes.",
        "Sizes must be solved exactly,",
        "and hold at sizes never seen,",
        "or no tape is written.",
    )
    for row, words in enumerate(notes):
        write(svg, x, y + 134 + 18 * row, words, css="s soft")


def _draw_entries(
    svg: ET.Element, x: int, y: int, rows: list[tuple[str, str, str]], peak: int
) -> None:
    write(svg, x + 256, y + 2, f"at {sides(512, 512)}", css="s soft", anchor="end")
    for row, (verb, text, size) in enumerate(rows):
        line = y + 22 + 21 * row
        if row == peak:
            shape = {"x": x - 8, "y": line - 15, "width": 272, "height": 21, "rx": 4}
            add(svg, "rect", {**shape, "css": "activations"})
        css = " on-activations" if row == peak else " soft" if verb == "free" else ""
        write(svg, x, line, verb, css=f"mono s{css}")
        write(svg, x + 68, line, text, css=f"mono s{css}")
        write(svg, x + 256, line, size, css=f"s{css}", anchor="end")


def _draw_curves(svg: ET.Element, left: int, top: int) -> None:
    """Draw the decoder's live memory above the weights at three sizes."""
    width, height, largest = 178, 190, 2.6 * GIB
    for number in range(3):
        y = top + height - number * GIB / largest * height
        css = "axis" if number == 0 else "rule"
        add(svg, "path", {"d": f"M{left} {y:.1f}h{width}", "css": css})
        write(svg, left + width + 6, y + 4, f"{number} GiB", css="s soft")
    for side in reversed(_SIDES):
        steps = [
            step
            for step in replay_steps("sd15-vae", mode="decode", image=(side, side))
            if step.component == "vae.decoder" and step.phase != "load"
        ]
        levels = [step.allocated_bytes - step.weights_bytes for step in steps]
        path = [f"M{left} {top + height}"]
        tops = [max(levels[first : first + _BUCKET]) for first in range(0, len(levels), _BUCKET)]
        share = width / len(tops)
        for index, level in enumerate(tops, start=1):
            y = top + height - level / largest * height
            path.append(f"V{y:.1f}H{left + share * index:.1f}")
        path.append(f"V{top + height}Z")
        add(svg, "path", {"d": "".join(path), "css": f"depth-{side}"})
        peak = max(levels)
        y = top + height - peak / largest * height
        x = left + share * tops.index(peak)
        words = f"{sides(side, side)}: {-(-peak // MIB):,} MiB"
        write(svg, x - 8, y + 11, words, css="s b halo-box", anchor="end")
    notes = ("Live memory above the weights: the", "same entries, with numbers put in.")
    for row, words in enumerate(notes):
        write(svg, left + 2, top + height + 26 + 17 * row, words, css="s soft")
