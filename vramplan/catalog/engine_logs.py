"""What engines printed when they loaded a model, as others published it: ``engine_logs/*.yaml``.

A log tells the settings, the model's shapes and every buffer as printed. It is shown beside ours
and held against ours by tests; nothing in it is ever used as ours. As for pipelines, a user's YAML
comes with marks and is checked.
"""

from __future__ import annotations

from collections.abc import Mapping

from vramplan.catalog.pipelines import setting_text
from vramplan.catalog.shipped import ENGINE_LOGS
from vramplan.engine_buffer import EngineBuffer, in_our_words
from vramplan.errors import CatalogError, UsageError
from vramplan.model import LANGUAGE_MODEL, LineKind, Settings
from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import TYPE_CHECKING, cast
from vramplan.settings import parse_setting
from vramplan.units import MIB

if TYPE_CHECKING:
    from pathlib import Path

    from vramplan.catalog.yaml_reader import Document, Plain

    Data = Mapping[str, Plain]

#: buffers are printed with two decimals of a MiB
ROUNDING_BYTES = round(0.005 * MIB)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedModel:
    """A model's shapes, in elements; `experts` is 0 for a dense one, `window` without windows."""

    name: str
    architecture: str
    layers: int
    embedding: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    experts: int = 0
    experts_used: int = 0
    expert_feed_forward: int = 0
    quantisation: str | None = None
    window: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedLoad:
    """One load of a model.

    `settings` are in vramplan's words, ``engine`` and ``gpu_layers`` among them; the build in
    ``engine`` is the one named, or one of about that time (`is_build_named` tells which).
    Buffers are within `ROUNDING_BYTES` of what they were.
    """

    name: str
    source: str
    date: str | None
    program: str
    is_build_named: bool
    build_from: str
    backend: str
    gpu: str | None
    compute_capability: str | None
    settings: Settings
    on_gpu: int
    total_layers: int
    model: LoggedModel
    buffers: tuple[EngineBuffer, ...]
    remark: str | None = None

    def buffer_bytes(self, kind: LineKind, *, on_gpu: bool) -> int | None:
        """Return what the language model's buffers of `kind` take; None where none is printed."""
        sizes = [
            one.size_bytes
            for one in in_our_words(self.buffers)
            if (one.kind, one.component) == (kind, LANGUAGE_MODEL) and one.device.is_host != on_gpu
        ]
        return sum(sizes) if sizes else None


def load_engine_logs(folder: Path) -> tuple[LoggedLoad, ...]:
    """Return the logs under a catalogue folder's ``engine_logs``, by name; none without it.

    Raises CatalogError, with the first thing that is wrong in a file.
    """
    return tuple(load_engine_log(path) for path in sorted((folder / ENGINE_LOGS).glob("*.yaml")))


def load_engine_log(path: Path) -> LoggedLoad:
    """Return the log that the YAML file at `path` tells. Raises CatalogError."""
    from vramplan.catalog.yaml_reader import read_yaml

    document = read_yaml(path)
    errors = check_engine_log(document, path.stem)
    if errors:
        raise errors[0]
    return build_engine_log(cast("Data", document.data))


def check_engine_log(document: Document, name: str) -> list[CatalogError]:
    """Return what is wrong in a log's file; what it means is looked at once the shape is right."""
    from vramplan.catalog.schema import check_shape

    errors = check_shape(document, "engine_log")
    if errors:
        return errors
    data = cast("Data", document.data)
    if data["name"] != name:
        errors.append(document.error(("name",), f"the file is called {name}.yaml"))
    if ("build" in data) == ("near_build" in data):
        message = "give one of `build` (named) and `near_build` (of about that time)"
        errors.append(document.error(("build_from",), message))
    layers, model = cast("Data", data["layers"]), cast("Data", data["model"])
    if cast("int", layers["total"]) != cast("int", model["layers"]) + 1:
        message = "expected the model's layers and the output layer"
        errors.append(document.error(("layers", "total"), message))
    if cast("int", layers["on_gpu"]) > cast("int", layers["total"]):
        errors.append(document.error(("layers", "on_gpu"), "more than there are"))
    try:
        _settings(data)
    except UsageError as problem:
        errors.append(document.error(("settings",), str(problem), hint=problem.hint))
    return errors


def build_engine_log(data: Data) -> LoggedLoad:
    """Return the log that checked `data` tells."""
    layers = cast("Mapping[str, int]", data["layers"])
    buffers = cast("list[Mapping[str, str | float]]", data["buffers"])
    return LoggedLoad(
        name=cast("str", data["name"]),
        source=cast("str", data["source"]),
        date=cast("str | None", data.get("date")),
        program=cast("str", data["program"]),
        is_build_named="build" in data,
        build_from=cast("str", data["build_from"]),
        backend=cast("str", data["backend"]),
        gpu=cast("str | None", data.get("gpu")),
        compute_capability=cast("str | None", data.get("compute_capability")),
        settings=_settings(data),
        on_gpu=layers["on_gpu"],
        total_layers=layers["total"],
        model=LoggedModel(**cast("dict[str, int]", data["model"])),  # type: ignore[arg-type]  # sizes by name, checked above
        buffers=tuple(
            EngineBuffer(
                device=str(buffer["device"]),
                name=str(buffer["name"]),
                size_bytes=round(float(buffer["mib"]) * MIB),
            )
            for buffer in buffers
        ),
        remark=cast("str | None", data.get("remark")),
    )


def _settings(data: Data) -> Settings:
    """Return the settings as `vramplan` takes them; the layers and the build are among them."""
    told = dict(cast("Data", data["settings"]))
    told["gpu_layers"] = cast("Data", data["layers"])["on_gpu"]
    told["engine"] = data.get("build", data.get("near_build"))
    return {key: parse_setting(key, setting_text(value)) for key, value in told.items()}
