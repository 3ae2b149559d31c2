"""What the drawings share: their colours in light and dark, their page, their letters.

Every drawing paints its own background and follows the reader's light or dark preference, so it can
stand in a README, in a page of the documentation and in a file of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree import ElementTree as ET

from vramplan.report.svg import add, finish, start, write

#: colours by name, each (light, dark); the kinds of memory have the colours of `vramplan report`
COLOURS: Mapping[str, tuple[str, str]] = {
    "page": ("#ffffff", "#12161c"),
    "panel": ("#f6f7f9", "#1a2028"),
    "line": ("#d5dae1", "#323b47"),
    "grid": ("#e9ecf0", "#252d37"),
    "text": ("#1a2027", "#e6eaef"),
    "soft": ("#55606d", "#9ba7b4"),
    "weights": ("#0072b2", "#4ea9e0"),
    "activations": ("#e69f00", "#edb23c"),
    "cache": ("#cc79a7", "#dc94bb"),
    "scratch": ("#14a37f", "#35bd98"),
    "slack": ("#c3c9d1", "#4a5563"),
    "hatching": ("#97a1ad", "#7d8996"),
    "context": ("#5b6673", "#75818f"),
    "on-weights": ("#ffffff", "#04182a"),
    "on-activations": ("#2b1d00", "#2b1d00"),
    "on-context": ("#ffffff", "#0b0f14"),
    "card": ("#b3261e", "#ff8a80"),
    "fits": ("#0a6b60", "#6fdcc6"),
    "tight": ("#7a5600", "#f2cd6b"),
    "offload": ("#6f3c9b", "#d3b1f2"),
    "oom": ("#a3152b", "#ff9aa6"),
}

#: classes that are more than a fill: what they are, with colours as {name}
_RULES = (
    ".axis{{fill:none;stroke:{soft}}}",
    ".grid{{fill:none;stroke:{grid}}}",
    ".frame{{fill:{page};stroke:{line}}}",
    ".box{{fill:{panel};stroke:{line}}}",
    ".rule{{fill:none;stroke:{line}}}",
    ".arrow{{fill:none;stroke:{soft};stroke-width:1.5}}",
    ".whisker{{fill:none;stroke:{text};stroke-width:1.5}}",
    ".card-line{{fill:none;stroke:{card};stroke-width:2;stroke-dasharray:6 4}}",
    ".limit-line{{fill:none;stroke:{text};stroke-width:2}}",
    ".hatch-line{{stroke:{hatching};stroke-width:3}}",
    ".dot{{fill:{activations};stroke:{page};stroke-width:2}}",
    ".curve-math{{fill:none;stroke:{oom};stroke-width:2.5}}",
    ".curve-sliced{{fill:none;stroke:{offload};stroke-width:2.5;stroke-dasharray:7 3}}",
    ".curve-sdpa{{fill:none;stroke:{weights};stroke-width:3}}",
    ".depth-1024{{fill:{activations};fill-opacity:.35}}",
    ".depth-768{{fill:{activations};fill-opacity:.6}}",
    ".depth-512{{fill:{activations}}}",
    ".halo-box{{paint-order:stroke;stroke:{panel};stroke-width:4px;stroke-linejoin:round}}",
    ".halo-slack{{paint-order:stroke;stroke:{slack};stroke-width:4px;stroke-linejoin:round}}",
    ".halo{{paint-order:stroke;stroke:{page};stroke-width:4px;stroke-linejoin:round}}",
)

_LETTERS = (
    "text{{font-family:{sans};font-size:13px;font-variant-numeric:tabular-nums;fill:{text}}}"
    ".h{{font-size:17px;font-weight:650}}.b{{font-weight:650}}.s{{font-size:12px}}"
    ".mono{{font-family:{mono}}}"
)
SANS = "system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans','DejaVu Sans',sans-serif"
MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"


def sides(width: int, height: int) -> str:
    """Return an image's size as people write it."""
    return f"{width}\N{MULTIPLICATION SIGN}{height}"


def begin(identity: str, width: int, height: int, title: str, summary: str) -> ET.Element:
    """Return a picture with its style, its background and the words that stand for it."""
    svg = start(identity, width, height, title, summary)
    svg.set("width", str(width))
    svg.set("height", str(height))
    ET.SubElement(svg, "style").text = style_sheet()
    shape = {"x": 0.5, "y": 0.5, "width": width - 1, "height": height - 1, "rx": 10, "css": "frame"}
    add(svg, "rect", shape)
    hatch = {"id": f"{identity}-hatch", "width": 6, "height": 6, "patternUnits": "userSpaceOnUse"}
    hatch["patternTransform"] = "rotate(45)"
    pattern = add(add(svg, "defs", {}), "pattern", hatch)
    add(pattern, "rect", {"width": 6, "height": 6, "css": "slack"})
    add(pattern, "path", {"d": "M0 0V6", "css": "hatch-line"})
    return svg


def style_sheet() -> str:
    """Return the classes, once in light colours and once, for who prefers it, in dark ones."""
    light = {name: pair[0] for name, pair in COLOURS.items()}
    dark = {name: pair[1] for name, pair in COLOURS.items()}
    return (
        _LETTERS.format(sans=SANS, mono=MONO, text=light["text"])
        + _classes(light)
        + "@media (prefers-color-scheme:dark){"
        + f"text{{fill:{dark['text']}}}"
        + _classes(dark)
        + "}"
    )


def _classes(colours: Mapping[str, str]) -> str:
    fills = "".join(f".{name}{{fill:{colour}}}" for name, colour in colours.items())
    return fills + "".join(rule.format(**colours) for rule in _RULES)


def hatched(identity: str) -> dict[str, float | str]:
    """Return the fill of allocator slack: hatched, so that it is told apart without colour."""
    return {"fill": f"url(#{identity}-hatch)"}


def head(svg: ET.Element, title: str, below: str) -> None:
    """Write a picture's heading and the line below it."""
    write(svg, 24, 34, title, css="h")
    write(svg, 24, 54, below, css="soft")


def end(svg: ET.Element) -> str:
    """Return the picture as a file's text, an element a line, so that changes can be read."""
    ET.indent(svg, space=" ")
    return finish(svg) + "\n"
