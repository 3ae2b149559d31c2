"""Ollama's names for other quantisations of a model: ``qwen3:8b-q8_0`` beside ``qwen3:8b``.

A tag is a size, words for the kind of training, and a quantisation. Source: the tags of
ollama.com/library, such as ``llama3.1:8b-instruct-q5_K_M``.
"""

from __future__ import annotations

import re

from vramplan.catalog.pipelines import Entry
from vramplan.engines.ggml.pipeline import LOG
from vramplan.engines.ggml.quantise_rules import TYPES
from vramplan.quick_dataclass import replace

_TAG = re.compile(
    r"(?P<size>[0-9.x]+[bm])(?:-(?:instruct|it|chat|text|base|code|v[0-9.]+|[0-9]{4}))*"
    r"-(?P<quantisation>[a-z0-9_]+)",
    re.IGNORECASE,
)
_OTHER_WORDS = {"fp16": "f16"}


def read_name(name: str) -> tuple[str, str] | None:
    """Return the plain name of a model, and the quantisation that its tag names; None for others.

    >>> read_name("llama3.1:8b-instruct-q5_K_M")
    ('llama3.1:8b', 'q5_k_m')
    """
    model, _, tag = name.partition(":")
    found = _TAG.fullmatch(tag)
    if found is None:
        return None
    word = found["quantisation"].lower()
    quantisation = _OTHER_WORDS.get(word, word)
    return (f"{model}:{found['size']}", quantisation) if quantisation in TYPES else None


def requantised(entry: Entry, name: str, quantisation: str) -> Entry | None:
    """Return an entry's model in another quantisation, called `name`; None for no such entry."""
    described = entry.section("ggml")
    if described is None:
        return None
    title, _, runner = entry.title.partition(", ")
    # a log is of the entry's own file
    shapes = {key: value for key, value in described.items() if key != LOG}
    return replace(
        entry,
        name=name,
        title=f"{title}, {quantisation.upper()}{runner[runner.find(' (') :] if runner else ''}",
        aliases=(),
        body={**entry.body, "ggml": {**shapes, "quantisation": quantisation}},
    )
