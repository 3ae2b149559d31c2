"""`vramplan.yaml` beside a project: what it deploys, and on what.

    targets:
      - sd15                            # as on the command line
      - sdxl[offload=model]             # with settings of its own
      - target: llava:7b                # the same at length, with a name
        name: chat
        settings: {context: 8192}
    cards: [8gb, rtx-4070]              # default: as `vramplan check` without --card
    settings: {batch: 2}                # for the targets that have them; one nobody has is an error
    together: [[sd15, chat]]            # these side by side on one card; on: all targets
    fail_on: tight                      # the mildest verdict that fails; default: offload
    margin: 512MiB                      # what stays free on every card
    other: 1GiB                         # what other processes hold there
    catalog: ./vramplan                 # a folder of catalogue files, relative to this file
    pipelines: []                       # pipelines of this project, as in a catalogue file

Only `targets` is needed. A pipeline here wins over a catalogue's by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from vramplan.catalog.pipelines import Entry, build_pipeline, check_pipeline, setting_text
from vramplan.catalog.target_text import Target, read_target
from vramplan.errors import CatalogError, UsageError, did_you_mean
from vramplan.model import VerdictKind
from vramplan.quick_dataclass import dataclass, field, replace
from vramplan.quick_typing import TYPE_CHECKING, cast
from vramplan.setting_values import SettingValue
from vramplan.settings import parse_setting
from vramplan.units import parse_size

if TYPE_CHECKING:
    from vramplan.catalog.yaml_reader import Document, KeyPath, Plain

    Data = Mapping[str, Plain]


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """What a project's file says; everything but the targets may be empty.

    `groups` are places among the targets of those that are side by side on one card; sizes are
    None, and so is `fail_on`, where the file has none.
    """

    path: Path
    targets: tuple[Target, ...]
    cards: tuple[str, ...] = ()
    settings: Mapping[str, SettingValue] = field(default_factory=dict)
    groups: tuple[tuple[int, ...], ...] = ()
    fail_on: VerdictKind | None = None
    margin_bytes: int | None = None
    other_bytes: int | None = None
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
    folder, fail_on = data.get("catalog"), data.get("fail_on")
    listed = cast("list[Plain]", data["targets"])
    targets = tuple(_target(one, document.at(("targets", n))) for n, one in enumerate(listed))
    return Project(
        path=path,
        targets=targets,
        cards=tuple(cast("list[str]", data.get("cards", []))),
        settings=_settings(data),
        groups=tuple(_groups(data, targets)),
        fail_on=None if fail_on is None else VerdictKind(str(fail_on)),
        margin_bytes=_size(data.get("margin")),
        other_bytes=_size(data.get("other")),
        catalog=path.parent / str(folder) if folder else None,
        pipelines=tuple(
            build_pipeline(pipeline, str(path))
            for pipeline in cast("list[Data]", data.get("pipelines", []))
        ),
    )


def _target(said: Plain, place: str) -> Target:
    """Return a target as a line of text or a mapping at a place says it; raises UsageError."""
    if not isinstance(said, dict):
        return replace(read_target(str(said)), place=place)
    short = read_target(str(said["target"]))
    own = {**short.settings, **_settings(said)}
    return Target(text=short.text, settings=own, name=str(said.get("name", "")), place=place)


def _settings(data: Data) -> dict[str, SettingValue]:
    return {
        key: parse_setting(key, setting_text(value))
        for key, value in cast("Data", data.get("settings", {})).items()
    }


def _size(value: Plain) -> int | None:
    if value is None:
        return None
    return value if isinstance(value, int) else parse_size(str(value))


def _names(data: Data) -> list[str]:
    """Return what each target goes by: its name, else its text as it stands in the file."""
    listed = cast("list[Plain]", data["targets"])
    return [
        str(one.get("name") or one["target"]) if isinstance(one, dict) else str(one)
        for one in listed
    ]


def _places(name: str, names: list[str], data: Data) -> list[int]:
    """Return the targets that go by a name: as it stands there, else without their brackets.

    So that a group need not be changed with the settings of what is in it.
    """
    found = [place for place, known in enumerate(names) if known == name]
    if found:
        return found
    listed = cast("list[Plain]", data["targets"])
    texts = [str(one["target"]) if isinstance(one, dict) else str(one) for one in listed]
    return [place for place, text in enumerate(texts) if text.partition("[")[0] == name]


def _groups(data: Data, targets: tuple[Target, ...]) -> Iterator[tuple[int, ...]]:
    together = data.get("together", "off")
    if isinstance(together, list):
        names = _names(data)
        for group in cast("list[list[str]]", together):
            yield tuple(_places(name, names, data)[0] for name in group)
    elif setting_text(together) == "on":
        yield tuple(range(len(targets)))


# ---------------------------------------------------------------------------------- what is wrong
def check_project(document: Document) -> list[CatalogError]:
    """Return what is wrong with a project's file; what it means only when its shape is right."""
    from vramplan.catalog.schema import check_shape

    errors = check_shape(document, "project")
    if errors:
        return errors
    data = cast("Data", document.data)
    errors += _check_targets(document, data)
    errors += _check_settings(document, (), data)
    errors += _check_groups(document, data)
    for key in ("margin", "other"):
        try:
            _size(data.get(key))
        except UsageError as problem:
            errors.append(document.error((key,), str(problem), hint=problem.hint))
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


def _check_settings(document: Document, where: KeyPath, data: Data) -> Iterator[CatalogError]:
    for key, value in cast("Data", data.get("settings", {})).items():
        try:
            parse_setting(key, setting_text(value))
        except UsageError as problem:
            place = (*where, "settings", key)
            yield document.error(place, str(problem), hint=problem.hint)


def _check_targets(document: Document, data: Data) -> Iterator[CatalogError]:
    seen: set[str] = set()
    for index, one in enumerate(cast("list[Plain]", data["targets"])):
        where: KeyPath = ("targets", index)
        is_long = isinstance(one, dict)
        text = str(one["target"]) if isinstance(one, dict) else str(one)
        try:
            read_target(text)
        except UsageError as problem:
            place = (*where, "target") if is_long else where
            yield document.error(place, str(problem), hint=problem.hint)
        if isinstance(one, dict):
            yield from _check_settings(document, where, one)
            name = one.get("name")
            if isinstance(name, str):
                if name in seen:
                    message = f"a target called {name!r} stands above already"
                    yield document.error((*where, "name"), message)
                seen.add(name)


def _check_groups(document: Document, data: Data) -> Iterator[CatalogError]:
    together = data.get("together")
    if not isinstance(together, list):
        return
    names = _names(data)
    for number, group in enumerate(cast("list[list[str]]", together)):
        seen: set[int] = set()
        for place, name in enumerate(group):
            where = ("together", number, place)
            found = _places(name, names, data)
            count = len(found)
            if count == 1 and found[0] in seen:
                yield document.error(where, f"{name!r} is in this group already")
            seen.update(found)
            if count == 0:
                hint = did_you_mean(name, names) or "targets: " + ", ".join(names[:8])
                yield document.error(where, f"no target is called {name!r}", hint=hint)
            elif count > 1:
                hint = "give them a name, such as: - {target: sd15, name: thumbnails}"
                yield document.error(where, f"several targets are called {name!r}", hint=hint)
