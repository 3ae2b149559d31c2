"""Figures and settings as people read them."""

from __future__ import annotations

import math

from vramplan.known_settings import told
from vramplan.model import Asked, Band, Estimate, Settings, SettingValue, Verdict, VerdictKind
from vramplan.report.colour import SIGNS
from vramplan.report.text import NAME_LIMIT, clean
from vramplan.units import GIB, format_size

#: what a cell shows where there is nothing to show
NOTHING = "\N{EN DASH}"


def name(text: str | None) -> str:
    """Return a name that is safe to show; what has none is an en dash."""
    return clean(text or "", NAME_LIMIT) or NOTHING


def need(size_bytes: int) -> str:
    """Return a size that something must have: rounded up."""
    return format_size(size_bytes, up=True)


def available(size_bytes: int) -> str:
    """Return a size that something offers: rounded down."""
    return format_size(size_bytes, up=False)


def spread(band: Band) -> str:
    """Return a band's low and high, both rounded up, with a dash between, or ``exact``.

    It stands beside the expected size, whose unit it repeats only where it is another one.
    """
    if band.low_bytes == band.high_bytes:
        return "exact"
    sizes = (band.low_bytes, band.expected_bytes, band.high_bytes)
    low, middle, high = (need(size).rsplit(" ", 1) for size in sizes)
    if low[1] == middle[1] == high[1]:
        return f"{low[0]}{NOTHING}{high[0]}"
    return f"{low[0] if low[1] == high[1] else ' '.join(low)}{NOTHING}{' '.join(high)}"


def percent(risk: float) -> str:
    """Return a probability of 0 to 1 in per cent, never rounded to a certainty it is not."""
    if math.isnan(risk):
        return NOTHING
    if risk <= 0:
        return "0 %"
    if risk >= 1:
        return "100 %"
    if risk < 0.01:
        return "<1 %"
    return ">99 %" if risk > 0.99 else f"{risk * 100:.0f} %"


def risk(row: Verdict) -> str:
    """Return a verdict's offload risk; ``certain`` where the runtime itself leaves a part out."""
    is_planned = row.kind is VerdictKind.OFFLOAD and row.offload_risk >= 1
    return "certain" if is_planned else percent(row.offload_risk)


def headroom_of(row: Verdict) -> str:
    """Return what a verdict's headroom is true of, where its kind does not say it: an offload's.

    With layers the need is the whole model's, and the engine keeps more free than is left; without,
    it is that of the run which fits because parts wait in system memory.
    """
    if row.kind is not VerdictKind.OFFLOAD or row.headroom_bytes < 0:
        return ""
    return "if all on GPU" if row.layers is not None else "as offloaded"


def difference(ours_bytes: int, published_bytes: int) -> str:
    """Return how far our figure is from a published one: ``+1.4 %``."""
    if published_bytes == 0:
        return NOTHING
    ratio = (ours_bytes - published_bytes) / published_bytes * 100
    return f"{ratio:+,.1f} %".replace("-", "\N{MINUS SIGN}")


def verdict(kind: VerdictKind) -> str:
    """Return a verdict's sign and word."""
    return f"{SIGNS[kind]} {kind.value}"


def value(setting: SettingValue) -> str:
    """Return a setting's value as ``--set`` reads it: an image is WIDTHxHEIGHT."""
    if isinstance(setting, tuple):
        return "x".join(str(side) for side in setting)
    return clean(str(setting), NAME_LIMIT)


def settings(chosen: Settings) -> str:
    """Return settings on one line: ``image=512x512 batch=1``."""
    return " ".join(f"{name(key)}={value(one)}" for key, one in told(chosen).items())


#: of the settings that somebody changed so many are named beside a verdict
_MOST_NAMED = 6


def called(pipeline: str, asked: Asked) -> str:
    """Return what a person calls a pipeline: the project's name for it, else its own."""
    return name(asked.name or pipeline)


def differing(pipeline: str, asked: Asked) -> str:
    """Return what tells a pipeline from the same at its defaults: ``batch=2 offload=model``.

    Where a project has a name for it, the pipeline's own comes first.
    """
    if asked.members:
        is_plain = not any(member.settings or member.name for member in asked.members)
        return "" if is_plain else clean(asked.label)
    parts = [f"{name(key)}={value(chosen)}" for key, chosen in asked.settings.items()]
    if len(parts) > _MOST_NAMED:
        parts = [*parts[:_MOST_NAMED], f"and {len(parts) - _MOST_NAMED} more"]
    return " ".join([*([name(pipeline)] if asked.name else []), *parts])


def place(phase: str, component: str) -> str:
    """Return where something happens: ``decode_image · vae.decoder``."""
    return f"{name(phase)} · {name(component)}"


def judged(row: Verdict) -> str:
    """Return which card stands for the one that was asked for, or nothing when it is itself."""
    return "" if row.judged_as in ("", row.card, row.card_title) else name(row.judged_as)


def axis(size_bytes: int) -> str:
    """Return a size beside an axis, in GiB: ``7.5 GiB``."""
    return f"{size_bytes / GIB:.3g} GiB"


def compute(capability: str) -> str:
    """Return a compute capability with its words before it."""
    return f"compute capability {name(capability)}"


def headline(estimate: Estimate) -> str:
    """Return what an estimate is about: its name, and its title where that says more."""
    title = clean(estimate.title, 120)
    own = [name(estimate.asked.name)] if estimate.asked.name else []
    known = " · ".join([*own, name(estimate.pipeline)])
    return known if title in ("", name(estimate.pipeline)) else f"{known} · {title}"


def nearest(size_bytes: int) -> str:
    """Return a size that is neither a need nor an offer: rounded to the nearest."""
    return format_size(size_bytes)


def of_what(estimate: Estimate) -> str:
    """Return what an estimate's peak is true of: a card with room, or the split that is shown."""
    layers = estimate.layers
    return "when the card has room" if layers is None or layers.is_whole else "with this split"
