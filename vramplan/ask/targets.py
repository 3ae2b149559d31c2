"""What is deployed: TARGETs and settings of the command line, as pipelines with all settings."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vramplan.catalog import Catalog, find_pipeline, load_catalog, user_folders
from vramplan.catalog.search import PROJECT_FILE
from vramplan.errors import SourceError, UsageError
from vramplan.model import Pipeline, Settings, SettingValue
from vramplan.settings import resolve_settings

_YAML = (".yaml", ".yml")
_PREFIXES = ("hf:", "ollama:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A pipeline at the settings it is to be judged at."""

    pipeline: Pipeline
    settings: Settings


def open_catalog(args: Namespace) -> Catalog:
    """Return the catalogue of ``--catalog``, VRAMPLAN_CATALOG and what ships."""
    return load_catalog(user_folders(args.catalog))


def given_settings(args: Namespace) -> dict[str, SettingValue]:
    """Return the settings of the command line; of two for one key the later wins."""
    return dict(args.settings)


def find_target(text: str, catalog: Catalog, mmproj: str | None = None) -> Pipeline:
    """Return the pipeline that a TARGET stands for: a name, a YAML file, or a model file.

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
        from vramplan.engines.ggml.open import find_local, open_model

        local = find_local(text)
        if local is None:
            return catalog.pipeline(text)
        try:
            return open_model(local, mmproj)
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


def make_jobs(
    targets: Sequence[str],
    catalog: Catalog,
    overrides: Mapping[str, SettingValue],
    mmproj: str | None = None,
) -> list[Job]:
    """Return each of `targets` with `overrides` over its defaults.

    Raises UsageError that names the target which does not have one of the settings.
    """
    pipelines = [find_target(text, catalog, mmproj) for text in targets]
    if mmproj is not None and sum(one.header is not None for one in pipelines) != 1:
        hint = "name one .gguf file, folder or model with it"
        raise UsageError("--mmproj belongs to one model file", hint=hint)
    return [
        override(Job(pipeline=found, settings=found.defaults), overrides) for found in pipelines
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


def folders_of(jobs: Sequence[Job], catalog: Catalog) -> tuple[Path, ...]:
    """Return where tapes are looked for: beside the files that were named, then the catalogue."""
    homes = dict.fromkeys(home_of(job.pipeline) for job in jobs)
    return (*(home for home in homes if home not in catalog.folders), *catalog.folders)
