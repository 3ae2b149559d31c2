"""A project's first file, as data: the cards and targets in it, and what else was found."""

from __future__ import annotations

from vramplan.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A TARGET or a CARD of the file, with what is said of it there; `why` it is none, if so."""

    text: str
    about: str = ""
    place: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """What a project's first file says.

    `others` are models that stand in it as comments, `left_out` what cannot be judged, and why.
    `is_sample` where nothing was found, and nobody named anything.
    """

    cards: tuple[Begun, ...]
    targets: tuple[Begun, ...]
    others: tuple[Begun, ...] = ()
    left_out: tuple[Begun, ...] = ()
    is_sample: bool = False
    has_own_gpu: bool = False
