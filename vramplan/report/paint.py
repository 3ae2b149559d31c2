"""What a picture's parts look like without the page's style sheet.

A host that forbids styles (a strict Content-Security-Policy) shows a page without its own. Colours
are therefore attributes of the shapes too: any rule of the style sheet wins over them, so that the
page has its themes, and without it bars have their colours and texts the reader's. The colours are
those of report.css for light pages; they stand out from dark ones as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree import ElementTree as ET

_TEXT = "currentColor"  # the reader's own: light on dark, dark on light
_WEIGHTS, _ACTIVATIONS, _CACHE, _SCRATCH = "#0072b2", "#e69f00", "#cc79a7", "#14a37f"
_SLACK, _HATCHING, _CONTEXT, _OTHER = "#c3c9d1", "#8e98a4", "#5b6673", "#a3acb7"
_RESERVED, _CARD, _GREY = "#9fd0ee", "#d1493f", "#808a95"
_WHITE, _BLACK = "#ffffff", "#12161b"

#: the class of a part -> its attributes
PAINT: Mapping[str, Mapping[str, str]] = {
    "fill-weights": {"fill": _WEIGHTS},
    "fill-activations": {"fill": _ACTIVATIONS},
    "fill-cache": {"fill": _CACHE},
    "fill-scratch": {"fill": _SCRATCH},
    "fill-slack": {"fill": _SLACK},
    "fill-context": {"fill": _CONTEXT},
    "fill-other": {"fill": _OTHER},
    "on-weights": {"fill": _WHITE},
    "on-activations": {"fill": _BLACK},
    "on-cache": {"fill": _BLACK},
    "on-scratch": {"fill": _BLACK},
    "on-slack": {"fill": _BLACK},
    "on-context": {"fill": _WHITE},
    "on-other": {"fill": _BLACK},
    "bar-fits": {"fill": "#0a8a7c"},
    "bar-tight": {"fill": "#b88400"},
    "bar-offload": {"fill": "#8a55ba"},
    "bar-oom": {"fill": "#c92f46"},
    "reserved": {"fill": _RESERVED},
    "allocated": {"fill": _WEIGHTS},
    "base": {"fill": _SLACK, "fill-opacity": "0.6"},
    "need": {"fill": _GREY, "fill-opacity": "0.5"},
    "rail": {"fill": _TEXT, "fill-opacity": "0.12"},
    "total-bar": {"fill": _TEXT, "fill-opacity": "0.7"},
    "guessed": {"fill-opacity": "0.45"},
    "hatching": {"stroke": _HATCHING, "stroke-width": "4"},
    "axis": {"stroke": _GREY, "fill": "none"},
    "grid": {"stroke": _GREY, "stroke-opacity": "0.3", "fill": "none"},
    "whisker": {"stroke": _TEXT, "stroke-width": "1.5", "fill": "none"},
    "limit": {"stroke": _TEXT, "stroke-width": "2", "fill": "none"},
    "card": {"stroke": _CARD, "stroke-width": "2", "stroke-dasharray": "6 4", "fill": "none"},
    "dot": {"fill": _ACTIVATIONS, "stroke": _BLACK},
    "strip-phase": {"fill": _GREY, "fill-opacity": "0.2", "stroke": _GREY},
    "strip-component": {"fill": "none", "stroke": _GREY},
    "label": {"font-weight": "600"},
    "dot-label": {"font-weight": "600"},
    "strong": {"font-weight": "600"},
    "torn": {"stroke": _WHITE, "stroke-width": "3", "fill": "none"},
    "card-label": {"fill": _CARD, "font-weight": "600"},
}

#: of every line of text: what it has to have of its own, and what it inherits from its picture
LETTERING: Mapping[str, str] = {
    "fill": _TEXT,
}
_INHERITED: Mapping[str, str] = {"font-size": "12.5", "font-family": "system-ui, sans-serif"}


def paint(svg: ET.Element) -> ET.Element:
    """Give a picture's parts the attributes of their classes, and the whole a size of its own.

    What a part has already stays; of two classes that say one thing the later counts.
    """
    _, _, width, height = svg.get("viewBox", "0 0 0 0").split()
    is_stretched = svg.get("preserveAspectRatio") == "none"
    given = {"width": "100%" if is_stretched else width, "height": height}
    given |= _INHERITED if svg.find(".//text") is not None else {}
    for part in svg.iter():
        found = dict(LETTERING) if part.tag == "text" else {}
        for one in part.get("class", "").split():
            found |= PAINT.get(one, {})
        for name, value in (given if part is svg else found).items():
            if name not in part.attrib:
                part.set(name, value)
    return svg
