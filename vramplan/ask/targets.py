"""What is deployed: TARGETs as jobs, each a pipeline at all of its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vramplan.catalog import Catalog, find_pipeline, load_catalog, user_folders
from vramplan.catalog.pipelines import Entry
from vramplan.catalog.search import PROJECT_FILE
from vramplan.engines import door
from vramplan.engines.door import Remark
from vramplan.errors import SourceError, UsageError
from vramplan.model import Job, Pipeline, SettingValue
from vramplan.settings import resolve_settings

_YAML = (".yaml", ".yml")
_PREFIXES = ("hf:", "ollama:")


def silent(_text: str) -> None:
    """Take a remark and say nothing."""


def open_catalog(folders: Sequence[str | Path] = ()) -> Catalog:
    """Return the catalogue of `folders`, of VRAMPLAN_CATALOG and of what ships."""
    return load_catalog(user_folders(folders))


def find_target(
    text: str, catalog: Catalog, mmproj: str | None = None, remark: Remark = silent
) -> Pipeline:
    """Return what a TARGET stands for: an entry by its name or in a YAML file, or a model file.

    `mmproj` is the projector of a model file. Raises UsageError for a name nobody knows, and
    SourceError for a model that is not there or not usable.
    """
    if _is_known(text, catalog):
        return catalog.pipeline(text)
    path = Path(text)
    if path.name == PROJECT_FILE:
        hint = "run vramplan check beside it, without a TARGET"
        raise UsageError(f"{text}: describes a project, not a pipeline", hint=hint)
    if path.suffix.lower() in _YAML:
        from vramplan.catalog import load_pipeline_file

        return load_pipeline_file(path)
    if text.startswith(_PREFIXES) or path.suffix.lower() == ".gguf" or path.is_dir() or "/" in text:
        local = door.find_file(text, remark)
        if local is None:
            return catalog.pipeline(text)
        try:
            return door.open_file(local, mmproj, remark)
        except SourceError as problem:
            bare = text.partition(":")[2]
            if not bare or not _is_known(bare, catalog):
                raise
            hint = f"the catalogue has it: {bare}; {problem.hint or ''}".rstrip("; ")
            raise SourceError(str(problem), hint=hint) from None
    return catalog.pipeline(text)


def _is_known(text: str, catalog: Catalog) -> bool:
    try:
        find_pipeline(text, catalog.pipelines)
    except UsageError:
        return False
    return True


def open_pipelines(found: Sequence[Pipeline], catalog: Catalog) -> list[Pipeline]:
    """Return what was found, entries as the pipelines of the engines that run them.

    Tapes are looked for beside the files that were named, then in the catalogue's folders.
    """
    folders = folders_of(found, catalog)
    return [door.open_entry(one, folders) if isinstance(one, Entry) else one for one in found]


def folders_of(pipelines: Sequence[Pipeline], catalog: Catalog) -> tuple[Path, ...]:
    """Return where tapes and runs are looked for: beside the files, then in the catalogue."""
    homes = dict.fromkeys(home_of(one) for one in pipelines)
    return (*(home for home in homes if home not in catalog.folders), *catalog.folders)


def make_jobs(
    targets: Sequence[str],
    catalog: Catalog,
    overrides: Mapping[str, SettingValue],
    mmproj: str | None = None,
    remark: Remark = silent,
) -> list[Job]:
    """Return each of `targets` with `overrides` over its defaults.

    Raises UsageError that names the target which does not have one of the settings.
    """
    found = [find_target(text, catalog, mmproj, remark) for text in targets]
    if mmproj is not None and sum(not isinstance(one, Entry) for one in found) != 1:
        hint = "name one .gguf file, folder or model with it"
        raise UsageError("--mmproj belongs to one model file", hint=hint)
    return [
        override(Job(pipeline=pipeline, settings=pipeline.defaults), overrides)
        for pipeline in open_pipelines(found, catalog)
    ]


def override(job: Job, settings: Mapping[str, SettingValue]) -> Job:
    """Return `job` with `settings` over its own; raises UsageError for one it does not have."""
    resolved = resolve_settings(job.pipeline, {**job.settings, **settings})
    return Job(pipeline=job.pipeline, settings=resolved)


def make_lenient_jobs(
    pipelines: Sequence[Pipeline], settings: Mapping[str, SettingValue], where: str
) -> list[Job]:
    """Return each of `pipelines` with those of `settings` that it has.

    For settings that are not meant for each one by name. Raises UsageError, which starts with
    `where` they stand, for one that no pipeline has.
    """
    for key in settings:
        if not any(key in pipeline.defaults for pipeline in pipelines):
            names = ", ".join(pipeline.name for pipeline in pipelines)
            raise UsageError(f"{where}: none of the targets has a setting {key!r}", hint=names)
    return [
        override(
            Job(pipeline=pipeline, settings=pipeline.defaults),
            {key: value for key, value in settings.items() if key in pipeline.defaults},
        )
        for pipeline in pipelines
    ]


def home_of(pipeline: Pipeline) -> Path:
    """Return the catalogue folder that a pipeline's file is in: its tape is in ``tapes`` there."""
    folder = Path(pipeline.path or ".").parent
    return folder.parent if folder.name == "pipelines" else folder
