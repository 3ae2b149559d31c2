"""A sweep's YAML file: which pipelines are judged on which cards, at which settings.

    cards: [8gb, 12gb, rtx-4090]          # as on the command line; `all` for every card known
    targets: [sd15, sdxl]
    settings:
      image: [512x512, 768x768]           # a list, or text as on the command line: 512..1024:64
      batch: 1..8
    margin: 500MiB
    other: 0MiB

Several grids share the cards where `grids` is a list of such `targets` and `settings` instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from vramplan.catalog.axes import Axes, read_axis
from vramplan.catalog.pipelines import setting_text
from vramplan.errors import CatalogError, UsageError
from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import TYPE_CHECKING, cast
from vramplan.setting_values import SettingValue
from vramplan.units import parse_size

if TYPE_CHECKING:
    from vramplan.catalog.yaml_reader import Document, KeyPath, Plain

    Data = Mapping[str, Plain]

HERE, RAY = "here", "ray"
#: where a sweep is computed
PLACES = (HERE, RAY)

#: keys that a pipeline's file has and a sweep's has not
_OF_PIPELINES = frozenset({"name", "runtime"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Targets, and the settings that each of them takes in every combination."""

    targets: tuple[str, ...]
    axes: Axes


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepFile:
    """What a sweep's file says; the cards may be empty, sizes None where it has none."""

    grids: tuple[Grid, ...]
    cards: tuple[str, ...] = ()
    margin_bytes: int | None = None
    other_bytes: int | None = None
    catalog: Path | None = None


def is_sweep_file(path: Path) -> bool:
    """Return whether a YAML file is a sweep's: it does not say what a pipeline's must.

    Raises CatalogError for a file that cannot be read.
    """
    from vramplan.catalog.yaml_reader import read_yaml

    data = read_yaml(path).data
    return not (isinstance(data, dict) and _OF_PIPELINES & data.keys())


def load_sweep(path: Path) -> SweepFile:
    """Return what the sweep's file at `path` says.

    Raises CatalogError, with the first thing that is wrong in the file.
    """
    from vramplan.catalog.yaml_reader import read_yaml

    document = read_yaml(path)
    errors = list(check_sweep(document))
    if errors:
        raise errors[0]
    data = cast("Data", document.data)
    folder = data.get("catalog")
    return SweepFile(
        grids=tuple(_grid(grid) for _, grid in _grids(data)),
        cards=tuple(cast("list[str]", data.get("cards", []))),
        margin_bytes=_size(data.get("margin")),
        other_bytes=_size(data.get("other")),
        catalog=path.parent / str(folder) if folder else None,
    )


def check_sweep(document: Document) -> Iterator[CatalogError]:
    """Yield what is wrong with a sweep's file; what it means only when its shape is right."""
    from vramplan.catalog.schema import check_shape

    errors = check_shape(document, "sweep")
    yield from errors
    if errors:
        return
    data = cast("Data", document.data)
    if ("targets" in data) == ("grids" in data):
        hint = "grids is a list of several targets and settings; one needs no list"
        yield document.error((), "needs either targets or grids", hint=hint)
    elif "grids" in data and "settings" in data:
        hint = "give each grid its own settings"
        yield document.error(("settings",), "stands beside grids", hint=hint, at_key=True)
    for where, grid in _grids(data):
        for key, values in cast("Data", grid.get("settings", {})).items():
            try:
                _values(key, values)
            except UsageError as problem:
                place = (*where, "settings", key)
                yield document.error(place, str(problem), hint=problem.hint)
    for key in ("margin", "other"):
        try:
            _size(data.get(key))
        except UsageError as problem:
            yield document.error((key,), str(problem), hint=problem.hint)
    folder = data.get("catalog")
    if folder and not (Path(document.path).parent / str(folder)).is_dir():
        yield document.error(("catalog",), f"{folder} is not a folder")


def _grids(data: Data) -> list[tuple[KeyPath, Data]]:
    if "grids" not in data:
        return [((), data)]
    grids = cast("list[Data]", data["grids"])
    return [(("grids", index), grid) for index, grid in enumerate(grids)]


def _grid(data: Data) -> Grid:
    settings = cast("Data", data.get("settings", {}))
    return Grid(
        targets=tuple(cast("list[str]", data["targets"])),
        axes={key: _values(key, values) for key, values in settings.items()},
    )


def _values(key: str, values: Plain) -> tuple[SettingValue, ...]:
    listed = values if isinstance(values, list) else [values]
    return read_axis(key, ",".join(setting_text(value) for value in listed))


def _size(value: Plain) -> int | None:
    if value is None:
        return None
    return value if isinstance(value, int) else parse_size(str(value))
