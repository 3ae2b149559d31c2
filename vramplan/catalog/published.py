"""Figures that others published: what ``published.yaml`` must say, and the claims it becomes.

A catalogue folder may have one, beside its ``pipelines``. Each figure names the settings and the
architecture it was measured at, so that ours can be worked out at exactly those. As for pipelines,
a user's YAML comes with marks and is checked; the shipped snapshot holds data that was checked when
it was written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vramplan.catalog.pipelines import setting_text
from vramplan.errors import CatalogError, UsageError
from vramplan.known_settings import SETTING_HELP
from vramplan.model import Pipeline, Settings
from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import TYPE_CHECKING, cast
from vramplan.settings import parse_setting, resolve_settings
from vramplan.units import parse_size

if TYPE_CHECKING:
    from pathlib import Path

    from vramplan.catalog.yaml_reader import Document, KeyPath, Plain

    Data = Mapping[str, Plain]

#: the unit of a figure that is a multiple of other components' weights
TIMES = "x"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One published figure, and everything that has to be known to work out ours.

    `value_bytes` is None for a multiple: then the figure is `times` the weights of `of`. `after`
    are settings that differed in a run before this one in the same process; None where there was
    none. `tolerance_percent` is how far off the tests let ours be; None where it is only shown.
    """

    name: str
    claim: str
    pipeline: str
    settings: Settings
    compute_capability: str
    metric: str
    value_bytes: int | None
    source: str
    remark: str | None = None
    components: tuple[str, ...] = ()
    of: tuple[str, ...] = ()
    times: float = 0.0
    after: Settings | None = None
    tolerance_percent: float | None = None


def load_published_file(path: Path) -> tuple[Claim, ...]:
    """Return the figures that the YAML file at `path` lists, in its order.

    Raises CatalogError, with the first thing that is wrong in the file.
    """
    from vramplan.catalog.yaml_reader import read_yaml

    document = read_yaml(path)
    errors = check_published(document)
    if errors:
        raise errors[0]
    return build_published(cast("Data", document.data))


def check_published(document: Document) -> list[CatalogError]:
    """Return what is wrong with the figures of `document`; what they mean once the shape is right.

    Whether a pipeline has a setting is seen when the figure is worked out.
    """
    from vramplan.catalog.schema import check_shape

    errors = check_shape(document, "published")
    if errors:
        return errors
    seen: set[Plain] = set()
    for index, figure in enumerate(_listed(cast("Data", document.data))):
        where = ("figures", index)
        if figure["name"] in seen:
            message = f"a figure {figure['name']!r} stands above already"
            errors.append(document.error((*where, "name"), message))
        seen.add(figure["name"])
        for key in ("settings", "after"):
            errors += _check_settings(document, (*where, key), cast("Data", figure.get(key, {})))
        errors += _check_value(document, where, figure)
    return errors


def _check_settings(document: Document, where: KeyPath, settings: Data) -> list[CatalogError]:
    errors = []
    for key, value in settings.items():
        try:
            parse_setting(key, setting_text(value))
        except UsageError as problem:
            is_foreign = key not in SETTING_HELP
            place = (*where, key)
            errors.append(document.error(place, str(problem), hint=problem.hint, at_key=is_foreign))
    return errors


def _check_value(document: Document, where: KeyPath, figure: Data) -> list[CatalogError]:
    """A multiple says of what, a size does not; weights say whose."""
    is_multiple = figure["unit"] == TIMES
    errors = []
    if is_multiple != ("of" in figure):
        message = "a multiple needs `of`, a size has none"
        errors.append(document.error((*where, "unit"), message))
    if (figure["metric"] == "weights") != ("components" in figure):
        message = "weights need `components`, another metric has none"
        errors.append(document.error((*where, "metric"), message))
    if not is_multiple:
        try:
            _size(figure)
        except UsageError as problem:
            errors.append(document.error((*where, "value"), str(problem), hint=problem.hint))
    return errors


def build_published(data: Data) -> tuple[Claim, ...]:
    """Return the figures that checked `data` lists."""
    return tuple(_build_claim(figure) for figure in _listed(data))


def _listed(data: Data) -> list[Data]:
    return cast("list[Data]", data["figures"])


def _build_claim(data: Data) -> Claim:
    is_multiple = data["unit"] == TIMES
    after = cast("Data | None", data.get("after"))
    return Claim(
        name=cast("str", data["name"]),
        claim=cast("str", data["claim"]),
        pipeline=cast("str", data["pipeline"]),
        settings=_settings(cast("Data", data.get("settings", {}))),
        compute_capability=cast("str", data["compute_capability"]),
        metric=cast("str", data["metric"]),
        value_bytes=None if is_multiple else _size(data),
        source=cast("str", data["source"]),
        remark=cast("str | None", data.get("remark")),
        components=tuple(cast("list[str]", data.get("components", []))),
        of=tuple(cast("list[str]", data.get("of", []))),
        times=float(cast("float", data["value"])) if is_multiple else 0.0,
        after=None if after is None else _settings(after),
        tolerance_percent=cast("float | None", data.get("tolerance_percent")),
    )


def _settings(data: Data) -> Settings:
    return {key: parse_setting(key, setting_text(value)) for key, value in data.items()}


def _size(data: Data) -> int:
    return parse_size(f"{setting_text(data['value'])}{data['unit']}")


def settings_of(claim: Claim, pipeline: Pipeline, changes: Settings | None = None) -> Settings:
    """Return all settings of a pipeline at which a claim was measured, with `changes` over them.

    Raises UsageError that names the figure for a setting the pipeline does not have.
    """
    try:
        return resolve_settings(pipeline, {**claim.settings, **(changes or {})})
    except UsageError as problem:
        message = f"figure {claim.name}: {problem}"
        raise UsageError(message, hint=problem.hint) from None


def sum_of(
    rows: Sequence[tuple[str, int]], names: Sequence[str], claim: Claim, pipeline: Pipeline
) -> int:
    """Return the bytes of those of `rows` that a claim names; a name stands for its parts too.

    Raises UsageError that names the figure for a component the pipeline does not have.
    """
    total = 0
    for name in names:
        sizes = [size for row, size in rows if row == name or row.startswith(f"{name}.")]
        if not sizes:
            known = ", ".join(row for row, _ in rows)
            message = f"figure {claim.name}: {pipeline.name} has no component {name!r}"
            raise UsageError(message, hint=f"it has: {known}")
        total += sum(sizes)
    return total
