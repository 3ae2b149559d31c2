"""cuDNN's own plans for convolutions: the workspaces it would take on a card, without cuDNN.

``profiles/witnessed/cudnn-8.9.json`` and its likes are made by ``python -m tools.cudnn_plans`` from
what torch and the real cuDNN did on cards that were not there. By dtype and layer each has the
plans' workspaces in the order in which torch tries them, as sums in bytes: of what is read (``x``),
what is written (``y``), the filter (``f``), the positions of one output image (``p``) and a number.
``x8`` is `x` with its channels filled up to a multiple of 8. Which plans there are changes with the
positions of the whole output: each list holds up to a number of them. Exceptions stand by
themselves, with their batch and their input's sides.

``profiles/witnessed/asked.json`` says at which sizes cuDNN was asked: there the sums are what it
answered, elsewhere what it answered of the nearest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from vramplan.engines.torch.tape.convolution import Convolution, read_kind
from vramplan.engines.torch.witnessed_files import (
    ASKED_FILE,
    FOLDER,
    file_name,
    not_ours,
    read_file,
    read_named,
)
from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import Any

_TERM = re.compile(r"([0-9]{1,8})?([xyfp])([0-9]{1,2})?|([0-9]{1,14})")

Sizes = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A layer at work: its batch, its input's sides, and the bytes of an element."""

    layer: Convolution
    batch: int
    sides: tuple[int, ...]
    element_bytes: int

    @property
    def image_positions(self) -> int:
        """The positions of one image of the layer's output."""
        return math.prod(self.layer.output_sides(self.sides))

    @property
    def positions(self) -> int:
        """The positions of the layer's whole output."""
        return self.batch * self.image_positions

    def measure(self, letter: str, multiple: int = 1) -> int:
        """Return the bytes of x, y or f with channels filled up, or the number p."""
        layer = self.layer
        inside = -(-layer.in_channels // multiple) * multiple
        outside = -(-layer.out_channels // multiple) * multiple
        if letter == "x":
            count = self.batch * math.prod(self.sides) * inside
        elif letter == "y":
            count = self.positions * outside
        elif letter == "f":
            count = inside // layer.groups * outside * math.prod(layer.kernel)
        else:
            return self.image_positions
        return count * self.element_bytes


def size_name(batch: int, sides: Sequence[int]) -> str:
    """Return what the files call a batch and its input's sides."""
    return "x".join(map(str, (batch, *sides)))


class _AtWork:
    """A layer at work, and what plans of it take: architectures have many of them in common."""

    __slots__ = ("image_positions", "name", "positions", "shape", "sizes")

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.positions = shape.positions
        self.image_positions = shape.image_positions
        self.name = size_name(shape.batch, shape.sides)
        self.sizes: dict[str, Sizes] = {}


@lru_cache(maxsize=1024)  # every architecture is asked about the same ones, one after the other
def _at_work(kind: str, operands: tuple[int, ...]) -> _AtWork | None:
    """Return the layer of a step of scratch; None where it is none."""
    layer = read_kind(kind)
    if layer is None or len(operands) != 4 + len(layer.kernel):
        return None
    filter_count = layer.in_channels // layer.groups * layer.out_channels
    element_bytes = operands[2] // (filter_count * math.prod(layer.kernel))
    return _AtWork(
        Shape(layer=layer, batch=operands[3], sides=operands[4:], element_bytes=element_bytes)
    )


def work_out(plan: str, shape: Shape) -> int:
    """Return the bytes of a plan's sum. Raises ValueError for what is no such sum."""
    number, terms = _read_sum(plan)
    return number + sum(
        times * shape.measure(letter, multiple) for times, letter, multiple in terms
    )


@lru_cache(maxsize=4096)  # all there are, some times over
def _read_sum(plan: str) -> tuple[int, tuple[tuple[int, str, int], ...]]:
    """Return the number in a plan's sum, and the rest of it: how often, what, of which multiple."""
    total, terms = 0, []
    for term in plan.split("+"):
        found = _TERM.fullmatch(term)
        if found is None:
            raise ValueError(f"not a plan: {plan[:60]!r}")
        times, letter, multiple, number = found.groups()
        if letter is None:
            total += int(number)
        else:
            terms.append((int(times or 1), letter, int(multiple or 1)))
    return total, tuple(terms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """Lists of plans by the most positions they hold for, of the whole output or of an image."""

    lists: tuple[tuple[int, str], ...]
    is_by_image: bool = False

    def at(self, shape: Shape | _AtWork) -> str:
        """Return the list that holds for a shape."""
        count = shape.image_positions if self.is_by_image else shape.positions
        return next((text for most, text in self.lists if count <= most), self.lists[-1][1])


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPlans:
    """The plans of one layer: its ranges, those of several images if they differ, exceptions."""

    ranges: Ranges
    several: Ranges | None = None
    exceptions: Mapping[str, str]

    def sizes_at(self, shape: Shape) -> Sizes:
        """Return the workspaces in the order in which they are tried, in bytes."""
        return self.sizes_of(_AtWork(shape))

    def sizes_of(self, work: _AtWork) -> Sizes:
        """Return the same of what may have been asked about before."""
        own = self.exceptions.get(work.name)
        if own is None:
            is_several = self.several is not None and work.shape.batch > 1
            own = (self.several if is_several else self.ranges).at(work)  # type: ignore[union-attr]  # as it says
        if own not in work.sizes:
            work.sizes[own] = tuple(work_out(plan, work.shape) for plan in own.split(" > "))
        return work.sizes[own]


class _Layers(Mapping[str, LayerPlans]):
    """The layers of one dtype by kind, each read when it is asked for: a run meets few of them.

    Raises CatalogError then for what is not what the tool writes.
    """

    def __init__(self, path: Path, raw: Mapping[str, Any]) -> None:
        self._path = path
        self._raw = raw
        self._read: dict[str, LayerPlans] = {}

    def __getitem__(self, kind: str) -> LayerPlans:
        """Return the plans of a kind; raises KeyError."""
        found = self._read.get(kind)
        if found is None:
            raw = self._raw[kind]
            try:
                found = self._read[kind] = _layer(raw)
            except (AttributeError, KeyError, TypeError, ValueError) as problem:
                raise not_ours(self._path, problem) from None
        return found

    def __iter__(self) -> Iterator[str]:
        """Yield the kinds."""
        return iter(self._raw)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plans:
    """What was witnessed on one architecture, by dtype and layer."""

    layers: Mapping[str, Mapping[str, LayerPlans]]

    def sizes(self, dtype: str, kind: str, operands: Sequence[int]) -> Sizes | None:
        """Return the workspaces of a step of scratch; None where its layer was not asked about.

        `operands` are the step's: bytes read, written and of the filter, batch, input's sides.
        """
        known = self.layers.get(dtype, {}).get(kind)
        found = None if known is None else _at_work(kind, tuple(operands))
        return None if known is None or found is None else known.sizes_of(found)


@lru_cache(maxsize=16)
def read_plans(profiles: Path, capability: str) -> Plans:
    """Return what was witnessed on an architecture.

    Raises CatalogError for a file that is not there, or not what the tool writes.
    """
    layers = read_file(profiles, capability).get("layers")
    path = profiles / FOLDER / file_name(capability)
    if not isinstance(layers, dict) or not all(isinstance(one, dict) for one in layers.values()):
        raise not_ours(path, "layers are not by dtype and kind")
    return Plans(layers={dtype: _Layers(path, one) for dtype, one in layers.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The sizes at which every architecture was asked, by layer: a text of size names each."""

    sizes: Mapping[str, str]

    def has(self, kind: str, operands: Sequence[int]) -> bool:
        """Return whether cuDNN was asked about a step of scratch; see `Plans.sizes`."""
        return f" {size_name(operands[3], operands[4:])} " in f" {self.sizes.get(kind, '')} "


@lru_cache(maxsize=16)
def read_asked(profiles: Path) -> Asked:
    """Return at which sizes cuDNN was asked.

    Raises CatalogError for a file that is not there, or not what the tool writes.
    """
    path = profiles / FOLDER / ASKED_FILE
    sizes = read_named(path).get("sizes")
    if not isinstance(sizes, dict) or not all(isinstance(one, str) for one in sizes.values()):
        raise not_ours(path, "sizes are not by kind")
    return Asked(sizes=sizes)


def _layer(raw: Any) -> LayerPlans:
    """Return one layer's plans: a text, or ranges and exceptions."""
    if isinstance(raw, str):
        return LayerPlans(ranges=Ranges(lists=((0, raw),)), exceptions={})
    exceptions = {str(shape): str(text) for shape, text in raw.get("but", {}).items()}
    if "one image" in raw:
        return LayerPlans(
            ranges=_ranges(raw["one image"]),
            several=_ranges(raw["several"]),
            exceptions=exceptions,
        )
    return LayerPlans(ranges=_ranges(raw), exceptions=exceptions)


def _ranges(raw: Any) -> Ranges:
    is_by_image = "image up to" in raw
    lists = raw["image up to" if is_by_image else "up to"]
    if not lists:
        raise ValueError("a layer without plans")
    return Ranges(
        lists=tuple((int(most), str(text)) for most, text in lists), is_by_image=is_by_image
    )
