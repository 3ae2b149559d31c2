"""Pipelines of the catalogue: what a file must say, and the `Entry` it becomes.

Two doors lead here. A user's YAML comes with marks and is checked; the shipped snapshot holds data
that was checked when it was written, and only `build_pipeline` is called.
"""

from __future__ import annotations

from collections.abc import Mapping

from vramplan.errors import CatalogError, UsageError, did_you_mean
from vramplan.known_settings import SETTING_HELP
from vramplan.model import ComponentSpec, Constraint, Pipeline
from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import TYPE_CHECKING, cast
from vramplan.setting_values import SettingValue
from vramplan.settings import check_setting, parse_setting

if TYPE_CHECKING:
    from pathlib import Path

    from vramplan.catalog.yaml_reader import Document, KeyPath, Plain

    Data = Mapping[str, Plain]

TORCH_RUNTIMES = ("diffusers", "transformers", "torch")
GGML_RUNTIMES = ("llama.cpp", "ollama", "lmstudio")

#: what an entry says to its engine alone
_OF_TORCH = ("class", "tape", "loading", "components", "parts", "scheduler")
_OF_GGML = ("ggml",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(Pipeline):
    """A pipeline as a file of the catalogue describes it.

    `body` is what the file says to the engine that runs it, checked and otherwise as it stands
    there; the engine makes its own kind of pipeline from it (`engines.door.open_entry`).
    """

    body: Mapping[str, object]
    #: ``ORG/NAME`` on the hub
    repositories: tuple[str, ...] = ()
    #: what it is listed with, what it does, the licence of its weights; empty where none is said
    family: str = ""
    task: str = ""
    license: str = ""

    def components(self) -> tuple[ComponentSpec, ...]:
        """Return the components that are described, in their order; a model file has none."""
        listed = cast("list[Data]", self.body.get("components", []))
        return tuple(_build_component(cast("str", one["name"]), one) for one in listed)

    @property
    def parameters(self) -> int | None:
        """The parameters of all components; None where one of them does not say its own.

        Of a model file, those of the language model in it.
        """
        of_file = (self.section("ggml") or {}).get("parameters")
        if isinstance(of_file, int):
            return of_file
        counts = [part.parameters for part in self.components()]
        known = [count for count in counts if count is not None]
        return sum(known) if known and len(known) == len(counts) else None

    def scheduler(self) -> ComponentSpec | None:
        """Return the scheduler that is described, or None."""
        described = cast("Data | None", self.body.get("scheduler"))
        return _build_component("scheduler", described) if described else None

    def text(self, key: str) -> str | None:
        """Return a word of the body, such as the name of its tape; None where it is not there."""
        value = self.body.get(key)
        return value if isinstance(value, str) else None

    def section(self, key: str) -> Mapping[str, object] | None:
        """Return a mapping of the body, such as a model file's shapes; None where it has none."""
        value = self.body.get(key)
        return cast("Mapping[str, object]", value) if isinstance(value, Mapping) else None


def load_pipeline_file(path: Path) -> Entry:
    """Return the pipeline that the YAML file at `path` describes.

    Raises CatalogError, with the first thing that is wrong in the file.
    """
    from vramplan.catalog.yaml_reader import read_yaml

    document = read_yaml(path)
    errors = check_pipeline(document)
    if errors:
        raise errors[0]
    return build_pipeline(cast("Data", document.data), str(path))


def check_pipeline(
    document: Document, where: KeyPath = (), value: Plain = None
) -> list[CatalogError]:
    """Return what is wrong with the pipeline of `document` (or the `value` at `where` in it).

    What it means is checked only when its shape is right.
    """
    from vramplan.catalog.schema import check_shape

    errors = check_shape(document, "pipeline", where, value)
    if errors:
        return errors
    data = cast("Data", document.data if value is None else value)
    return [
        *_check_runtime(document, where, data),
        *_check_components(document, where, data),
        *_check_constraints(document, where, data),
        *_check_defaults(document, where, data),
    ]


def _check_runtime(document: Document, where: KeyPath, data: Data) -> list[CatalogError]:
    """A torch runtime has components, a ggml engine has a model file; neither has the other's."""
    runtime = str(data["runtime"])
    foreign: tuple[str, ...]
    if runtime in TORCH_RUNTIMES:
        needed, foreign = "components", _OF_GGML
    else:
        needed, foreign = "ggml", _OF_TORCH
    errors = []
    if needed not in data:
        hint = f"a pipeline of {runtime} has it"
        errors.append(document.error(where, f"the key {needed!r} is missing", hint=hint))
    for key in foreign:
        if key in data:
            message = f"a pipeline of {runtime} has no {key}"
            errors.append(document.error((*where, key), message, at_key=True))
    return errors


def _check_components(document: Document, where: KeyPath, data: Data) -> list[CatalogError]:
    seen: set[Plain] = set()
    errors = []
    for index, component in enumerate(cast("list[Data]", data.get("components", []))):
        if component["name"] in seen:
            message = f"a component {component['name']!r} stands above already"
            errors.append(document.error((*where, "components", index, "name"), message))
        seen.add(cast("str", component["name"]))
    return errors


def _check_constraints(document: Document, where: KeyPath, data: Data) -> list[CatalogError]:
    errors = []
    settings = cast("Data", data["settings"])
    for key, value in cast("Mapping[str, Data]", data.get("constraints", {})).items():
        place = (*where, "constraints", key)
        if key not in settings:
            hint = did_you_mean(key, settings) or "settings: " + ", ".join(settings)
            errors.append(document.error(place, "no such setting", hint=hint, at_key=True))
        low, high = value.get("min"), value.get("max")
        if isinstance(low, int) and isinstance(high, int) and low > high:
            errors.append(document.error((*place, "min"), f"min {low} is above max {high}"))
    return errors


def _check_defaults(document: Document, where: KeyPath, data: Data) -> list[CatalogError]:
    """Every default is a value of its setting, and one that the constraints accept."""
    errors = []
    values: dict[str, SettingValue] = {}
    for key, default in cast("Data", data["settings"]).items():
        try:
            values[key] = parse_setting(key, setting_text(default))
        except UsageError as problem:
            place = (*where, "settings", key)
            is_foreign = key not in SETTING_HELP
            errors.append(document.error(place, str(problem), hint=problem.hint, at_key=is_foreign))
    pipeline = _with_defaults(data, values)
    for key, value in values.items():
        try:
            check_setting(pipeline, key, value)
        except UsageError as problem:
            place = (*where, "settings", key)
            errors.append(document.error(place, str(problem), hint=problem.hint))
    return errors


def setting_text(value: Plain) -> str:
    """Return a YAML value as the text a person would write for the setting."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    return str(value)


def build_pipeline(data: Data, path: str) -> Entry:
    """Return the pipeline that checked `data` describes; `path` is the file it came from."""
    settings = cast("Data", data["settings"])
    values = {key: parse_setting(key, setting_text(text)) for key, text in settings.items()}
    return _with_defaults(data, values, path)


def _with_defaults(data: Data, defaults: Mapping[str, SettingValue], path: str = "") -> Entry:
    return Entry(
        name=cast("str", data["name"]),
        title=cast("str", data["title"]),
        summary=cast("str", data["summary"]),
        runtime=cast("str", data["runtime"]),
        defaults=dict(defaults),
        constraints={
            key: _build_constraint(value)
            for key, value in cast("Mapping[str, Data]", data.get("constraints", {})).items()
        },
        source=cast("str", data["source"]),
        path=path,
        aliases=tuple(cast("list[str]", data.get("aliases", []))),
        repositories=tuple(cast("list[str]", data.get("repositories", []))),
        family=cast("str", data.get("family", "")),
        task=cast("str", data.get("task", "")),
        license=cast("str", data.get("license", "")),
        body={key: data[key] for key in (*_OF_TORCH, *_OF_GGML) if key in data},
    )


def _build_constraint(data: Data) -> Constraint:
    return Constraint(
        choices=tuple(cast("list[str]", data.get("choices", []))),
        multiple_of=cast("int | None", data.get("multiple_of")),
        minimum=cast("int | None", data.get("min")),
        maximum=cast("int | None", data.get("max")),
    )


def _build_component(name: str, data: Data) -> ComponentSpec:
    return ComponentSpec(
        name=name,
        class_path=cast("str", data["class"]),
        config=cast("Mapping[str, object]", data.get("config", {})),
        parameters=cast("int | None", data.get("parameters")),
        tape=cast("str | None", data.get("tape")),
        dtype=cast("str | None", data.get("dtype")),
    )
