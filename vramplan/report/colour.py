"""What a terminal gets to see in colour: never a meaning that is not also a word and a sign."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from vramplan.model import LineKind, VerdictKind
from vramplan.quick_typing import TextIO


class Tone(StrEnum):
    """How a piece of text stands out."""

    PLAIN = "plain"
    STRONG = "strong"
    DIM = "dim"
    FITS = "fits"
    TIGHT = "tight"
    OFFLOAD = "offload"
    OOM = "oom"
    WEIGHTS = "weights"
    ACTIVATIONS = "activations"
    CACHE = "cache"
    SCRATCH = "scratch"
    SLACK = "slack"
    CONTEXT = "context"
    OTHER = "other"


#: the sign that stands before each verdict's word
SIGNS = {
    VerdictKind.FITS: "✓",
    VerdictKind.TIGHT: "~",
    VerdictKind.OFFLOAD: "⚠",
    VerdictKind.OOM: "✗",
}

#: how each kind of line of a budget is drawn
LINE_TONES = {
    LineKind.WEIGHTS: Tone.WEIGHTS,
    LineKind.KV_CACHE: Tone.CACHE,
    LineKind.RECURRENT_STATE: Tone.CACHE,
    LineKind.GRADIENTS: Tone.CACHE,
    LineKind.OPTIMIZER_STATE: Tone.CACHE,
    LineKind.ACTIVATIONS: Tone.ACTIVATIONS,
    LineKind.COMPUTE_BUFFER: Tone.SCRATCH,
    LineKind.PROJECTOR_COMPUTE: Tone.SCRATCH,
    LineKind.WORKSPACE: Tone.SCRATCH,
    LineKind.ENGINE_POOL: Tone.SCRATCH,
    LineKind.ALLOCATOR_SLACK: Tone.SLACK,
    LineKind.CUDA_CONTEXT: Tone.CONTEXT,
}

# The sixteen basic colours follow the user's own theme, so they stay readable on dark and light.
_CODES = {
    Tone.STRONG: "1",
    Tone.DIM: "2",
    Tone.FITS: "32",
    Tone.TIGHT: "33",
    Tone.OFFLOAD: "35",
    Tone.OOM: "1;31",
    Tone.WEIGHTS: "34",
    Tone.ACTIVATIONS: "33",
    Tone.CACHE: "35",
    Tone.SCRATCH: "36",
    Tone.SLACK: "2",
    Tone.CONTEXT: "90",
}


def wants_colour(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Return whether `stream` is a terminal whose user did not ask for no colour.

    NO_COLOR counts when it is set and not empty. Source: https://no-color.org.
    """
    if environment.get("NO_COLOR") or environment.get("TERM") == "dumb":
        return False
    try:
        return stream.isatty()
    except ValueError:  # a closed stream
        return False


def paint(text: str, tone: Tone, colour: bool) -> str:
    """Return `text` in the colour of `tone`, or as it is where `colour` is off."""
    code = _CODES.get(tone)
    if not (colour and code and text.strip()):
        return text
    return f"\x1b[{code}m{text}\x1b[0m"


def verdict_tone(kind: VerdictKind) -> Tone:
    """Return the tone of a verdict."""
    return Tone(kind.value)
