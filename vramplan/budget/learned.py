"""What runs on real GPUs taught: the file ``learned.json`` of the profiles, if there is one.

It is written by ``tools/learn.py`` from ``profiles/measured`` and by nothing else. Where it
has nothing to say, published figures and stated assumptions stay in force.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from vramplan.catalog.shipped import profiles_dir
from vramplan.errors import CatalogError
from vramplan.model import Band
from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import Any

FILE = "learned.json"
SCHEMA_VERSION = 1

_LARGEST = 1 << 45


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedBand:
    """A size as it was measured: lowest, median, highest; `source` names GPU, driver, versions."""

    band: Band
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedScratch:
    """How much of a convolution's operands its workspace is, in per cent."""

    input_percent: int
    output_percent: int
    filter_percent: int
    high_percent: int
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """By compute capability; contexts by size too (`context_key`), scratch by element bytes."""

    contexts: Mapping[str, LearnedBand]
    scratches: Mapping[tuple[str, int], LearnedScratch]


def learned() -> Learned:
    """Return what was learned; raises CatalogError for a file that does not say what it must."""
    return read_learned(_path(profiles_dir()))


@lru_cache(maxsize=8)
def _path(folder: Path) -> Path:
    return folder / FILE


@lru_cache(maxsize=8)
def read_learned(path: Path) -> Learned:
    """Return what the file at `path` says; nothing where it is not there."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Learned(contexts={}, scratches={})
    except (OSError, ValueError) as problem:
        raise CatalogError(f"{path}: cannot be read: {problem}") from None
    try:
        return _learned(data)
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise CatalogError(f"{path}: not what tools/learn.py writes: {problem}") from None


def _learned(data: Any) -> Learned:
    if data["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"version {data['schema_version']!r}")
    return Learned(
        contexts={str(key): _band(one) for key, one in data["contexts"].items()},
        scratches={
            (str(one["compute_capability"]), int(one["element_bytes"])): _scratch(one)
            for one in data["convolutions"]
        },
    )


def _band(one: Any) -> LearnedBand:
    low, middle, high = (_size(one[key]) for key in ("low_bytes", "bytes", "high_bytes"))
    band = Band(low_bytes=low, expected_bytes=middle, high_bytes=high)
    return LearnedBand(band=band, source=str(one["source"]))


def _scratch(one: Any) -> LearnedScratch:
    return LearnedScratch(
        input_percent=_size(one["input_percent"]),
        output_percent=_size(one["output_percent"]),
        filter_percent=_size(one["filter_percent"]),
        high_percent=_size(one["high_percent"]),
        source=str(one["source"]),
    )


def _size(found: Any) -> int:
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < _LARGEST:
        raise ValueError(f"{found!r} is not a size")
    return found
