"""A project's first file, with comments: what was found, and what else can be said there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from vramplan.quick_typing import TYPE_CHECKING
from vramplan.report.text import clean

if TYPE_CHECKING:
    from vramplan.catalog.beginning import Beginning, Begun

#: what YAML takes as the text that it is, outside of a flow
_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_.:/+\[\]=-]*[A-Za-z0-9_/\]]")
#: a class or a size, such as 8gb
_SIZE = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,4})?[A-Za-z]{2,3}")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off"})
#: so many of what is not judged are listed
_MOST_LISTED = 40
_LONGEST_COMMENT = 70


def render(beginning: Beginning) -> str:
    """Return the file's text."""
    return "\n".join(_lines(beginning)) + "\n"


def _lines(beginning: Beginning) -> Iterator[str]:
    yield "# What is deployed, and on what. `vramplan check` says whether it fits, and"
    yield "# `vramplan plan` what to change where it does not."
    yield ""
    yield "targets:"
    if beginning.is_sample:
        yield "  # nothing was found here: a sample, to be replaced by what you deploy, such as a"
        yield "  # name of `vramplan catalog list`, a folder or a file of a model, hf:ORG/NAME"
    yield from _listed(beginning.targets)
    if beginning.others:
        yield "  # here too, and not judged:"
        yield from (f"  # {line.strip()}" for line in _listed(beginning.others[:_MOST_LISTED]))
        yield from _rest(beginning.others)
    if beginning.left_out:
        yield "  # here too, and cannot be judged:"
        for one in beginning.left_out[:_MOST_LISTED]:
            yield f"  #   {clean(one.text, 120)}: {clean(one.why, 200)}"
        yield from _rest(beginning.left_out)
    yield "  # settings of one target stand behind it, or below its name:"
    yield "  # - sd15[batch=2,image=768x768]"
    yield "  # - target: llava:7b"
    yield "  #   name: chat"
    yield "  #   settings: {context: 8192}"
    yield ""
    yield "# names (`vramplan cards`), classes (8gb), sizes (11.6GiB), auto for what is free here"
    yield "cards:"
    yield from _listed(beginning.cards)
    yield ""
    yield "# settings for all targets that have them:"
    yield "# settings: {dtype: bf16}"
    yield ""
    yield "# which targets are loaded side by side on one card; on: all of them"
    yield "# together: [[sd15, chat]]"
    yield ""
    yield "# the mildest verdict with which `vramplan check` exits with 1: tight, offload or oom"
    yield "fail_on: offload"
    yield ""
    yield "# what stays free on every card, for a desktop or for what is not modelled"
    yield "# margin: 500MiB"


def _listed(items: tuple[Begun, ...]) -> Iterator[str]:
    for one in items:
        said = ", ".join(part for part in (one.place, clean(one.about, _LONGEST_COMMENT)) if part)
        yield f"  - {write_text(one.text)}" + (f"  # {said}" if said else "")


def _rest(items: tuple[Begun, ...]) -> Iterator[str]:
    if len(items) > _MOST_LISTED:
        yield f"  # and {len(items) - _MOST_LISTED} more"


def closing(beginning: Beginning, file: str) -> str:
    """Return what is said when the file is written: what is in it, and what comes next."""
    targets, cards = beginning.targets, beginning.cards
    what = clean(targets[0].text, 60) if len(targets) == 1 else f"{len(targets)} targets"
    sample = " (a sample: nothing was found here)" if beginning.is_sample else ""
    on = ", ".join(clean(card.text, 40) for card in cards[:4])
    more = f" and {len(cards) - 4} more" if len(cards) > 4 else ""
    return f"{file}: {what}{sample} on {on}{more}\nnext: vramplan check\n"


def write_text(text: str) -> str:
    """Return text as YAML has it in a list: plain where that is the same text, else in quotes."""
    is_plain = _PLAIN.fullmatch(text) and text.lower() not in _WORDS
    return text if is_plain or _SIZE.fullmatch(text) else json.dumps(text, ensure_ascii=False)
