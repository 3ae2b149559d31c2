"""The questions for programs: what the commands ask, with plain arguments and nothing printed.

A setting is given as the command line has it, in text, or as the value itself: ``image="768x768"``
or ``image=(768, 768)``, ``batch=2``, ``vae_tiling=True``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vramplan.ask import check as checking
from vramplan.ask.estimate import estimate_target
from vramplan.ask.targets import make_jobs, open_catalog, silent
from vramplan.errors import UsageError
from vramplan.model import Estimate, Job, SettingValue
from vramplan.settings import parse_setting
from vramplan.units import parse_size

Setting = str | int | float | bool | tuple[int, int]
#: one CARD or several: names, classes, sizes or ``auto``
Cards = str | Sequence[str]


def check(
    *targets: str,
    card: Cards = (),
    together: bool = False,
    margin: int | str = 0,
    other: int | str | None = None,
    mmproj: str | Path | None = None,
    catalog: Sequence[str | Path] = (),
    engine_check: bool = False,
    **settings: Setting,
) -> checking.Answer:
    """Return the verdict for each TARGET on each CARD, as ``vramplan check`` gives it.

    Without a card this machine's GPUs are judged, or an 8 GB and a 12 GB card where it has none;
    the answer's `remarks` say which. `margin` and `other` are bytes, or sizes such as ``"500MiB"``.
    Raises VramplanError: for a target, card or setting nobody knows, and for what has no estimate.

    >>> answer = check("sd15", card="12gb", image="512x512")
    >>> [str(verdict.kind) for verdict in answer.verdicts]
    ['fits']
    """
    if not targets:
        raise UsageError("no target", hint='name one, such as: check("sd15", card="8gb")')
    remarks: list[str] = []
    question = checking.read_targets(
        targets,
        _cards(card),
        read_settings(**settings),
        remarks.append,
        catalog=catalog,
        mmproj=None if mmproj is None else str(mmproj),
        is_together=together,
        margin_bytes=_size(margin),
        other_bytes=None if other is None else _size(other),
    )
    found = checking.answer(question, silent, asks_engine=engine_check)
    return replace(found, remarks=tuple(remarks))


def estimate(
    target: str,
    *,
    card: Cards = (),
    mmproj: str | Path | None = None,
    catalog: Sequence[str | Path] = (),
    **settings: Setting,
) -> Estimate:
    """Return the budget of a TARGET, as ``vramplan estimate`` gives it.

    Of several cards the one that needs most is taken; without one compute capability 8.6 is
    assumed, and the estimate's notes say so. Raises VramplanError.

    >>> estimate("sd15").peak.phase
    'decode_image'
    """
    found = estimate_target(
        target,
        _cards(card),
        read_settings(**settings),
        silent,
        catalog=catalog,
        mmproj=None if mmproj is None else str(mmproj),
    )
    return found.estimate


def open_target(
    target: str,
    *,
    mmproj: str | Path | None = None,
    catalog: Sequence[str | Path] = (),
    **settings: Setting,
) -> Job:
    """Return what a TARGET stands for, at its defaults with `settings` over them.

    Raises VramplanError for a target nobody knows, and for a setting that it does not have.

    >>> open_target("sd15", batch=2).settings["batch"]
    2
    """
    beside = None if mmproj is None else str(mmproj)
    (job,) = make_jobs([target], open_catalog(catalog), read_settings(**settings), beside)
    return job


def read_settings(**settings: Setting) -> dict[str, SettingValue]:
    """Return settings as the command line would read them; raises UsageError."""
    return {key: parse_setting(key, _text(value)) for key, value in settings.items()}


def _text(value: Setting) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return "x".join(str(side) for side in value)
    return str(value)


def _cards(card: Cards) -> Sequence[str]:
    return [card] if isinstance(card, str) else card


def _size(size: int | str) -> int:
    return parse_size(size) if isinstance(size, str) else size
