"""A pipeline that torch runs, from the catalogue's entry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vramplan.catalog.pipelines import Entry
from vramplan.catalog.shipped import profiles_dir
from vramplan.engines.torch.pipeline import MODULES, TorchPipeline
from vramplan.engines.torch.weight_settings import add_cache_settings, add_weight_settings
from vramplan.quick_dataclass import replace


def open_entry(entry: Entry, folders: Sequence[Path]) -> TorchPipeline:
    """Return the pipeline of a catalogue's entry; its tape is looked for in `folders`.

    One that names no tape but says its parameters has one of its own name for the settings it was
    recorded at, and is recorded or counted at others.
    """
    pipeline = TorchPipeline(
        name=entry.name,
        title=entry.title,
        summary=entry.summary,
        runtime=entry.runtime,
        defaults=entry.defaults,
        constraints=entry.constraints,
        source=entry.source,
        path=entry.path,
        aliases=entry.aliases,
        components=entry.components(),
        scheduler=entry.scheduler(),
        class_path=entry.text("class"),
        parts=entry.section("parts") or {},
        tape=entry.text("tape"),
        loading=entry.text("loading") or "to",
        folders=tuple(folders),
    )
    pipeline = _with_layers(pipeline)
    if len(pipeline.components) == 1:
        (spec,) = pipeline.components
        pipeline = add_cache_settings(pipeline, spec.class_path, spec.config)
    if pipeline.tape is not None:
        return pipeline
    from vramplan.engines.torch.described import describe

    found = describe(pipeline, entry)
    return replace(found, tape_within=entry.name) if found.counted is not None else found


def _with_layers(pipeline: TorchPipeline) -> TorchPipeline:
    """Return one of our entries with its list of layers, and the settings that it makes possible.

    Another's entry of the same name may be another model.
    """
    shipped = profiles_dir()
    if Path(pipeline.path).parent.parent != shipped:
        return pipeline
    if not (shipped / MODULES / f"{pipeline.name}.json.gz").is_file():
        return pipeline
    return replace(add_weight_settings(pipeline), module_list=pipeline.name)
