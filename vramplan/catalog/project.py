"""`vramplan.yaml` beside a project: what it deploys, and on what.

    targets: [sd15, llava:7b]     # as on the command line
    cards: [8gb, rtx-4070]        # default: as `vramplan check` without --card
    settings: {batch: 2}          # for the targets that have them; one nobody has is an error
    together: off                 # on: all targets side by side on one card
    catalog: ./vramplan           # a folder of catalogue files, relative to this file
    pipelines: []                 # pipelines of this project, as in a catalogue file

Only `targets` is needed. A pipeline here wins over a catalogue's by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from vramplan.catalog.pipelines import Entry, build_pipeline, check_pipeline, setting_text
from vramplan.errors import CatalogError, UsageError
from vramplan.quick_dataclass import dataclass, field
from vramplan.settings import SettingValue, parse_setting

if TYPE_CHECKING:
    from vramplan.catalog.yaml_reader import Document, Plain

    Data = Mapping[str, Plain]


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """What a project's file says; everything but the targets may be empty."""

    path: Path
    targets: tuple[str, ...]
    cards: tuple[str, ...] = ()
    settings: Mapping[str, SettingValue] = field(default_factory=dict)
    is_together: bool = False
    catalog: Path | None = None
    pipelines: tuple[Entry, ...] = ()


def load_project(path: Path) -> Project:
    """Return what the project file at `path` says.

    Raises CatalogError, with the first thing that is wrong in the file.
    """
    from vramplan.catalog.yaml_reader import read_yaml

    document = read_yaml(path)
    errors = check_project(document)
    if errors:
        raise errors[0]
    data = cast("Data", document.data)
    folder = data.get("catalog")
    return Project(
        path=path,
        targets=tuple(cast("list[str]", data["targets"])),
        cards=tuple(cast("list[str]", data.get("cards", []))),
        settings={
            key: parse_setting(key, setting_text(value))
            for key, value in cast("Data", data.get("settings", {})).items()
        },
        is_together=setting_text(data.get("together", "off")) == "on",
        catalog=path.parent / str(folder) if folder else None,
        pipelines=tuple(
            build_pipeline(pipeline, str(path))
            for pipeline in cast("list[Data]", data.get("pipelines", []))
        ),
    )


def check_project(document: Document) -> list[CatalogError]:
    """Return what is wrong with a project's file; what it means only when its shape is right."""
    from vramplan.catalog.schema import check_shape

    errors = check_shape(document, "project")
    if errors:
        return errors
    data = cast("Data", document.data)
    for key, value in cast("Data", data.get("settings", {})).items():
        try:
            parse_setting(key, setting_text(value))
        except UsageError as problem:
            errors.append(document.error(("settings", key), str(problem), hint=problem.hint))
    folder = data.get("catalog")
    if folder and not (Path(document.path).parent / str(folder)).is_dir():
        errors.append(document.error(("catalog",), f"{folder} is not a folder"))
    names: set[str] = set()
    for index, pipeline in enumerate(cast("list[Data]", data.get("pipelines", []))):
        where = ("pipelines", index)
        errors += check_pipeline(document, where, cast("Plain", pipeline))
        if str(pipeline["name"]) in names:
            message = f"a pipeline {pipeline['name']!r} stands above already"
            errors.append(document.error((*where, "name"), message))
        names.add(str(pipeline["name"]))
    return errors
