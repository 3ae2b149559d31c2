"""What is deployed: TARGETs as jobs, each a pipeline at all of its settings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from vramplan.catalog import Catalog, find_alike, find_pipeline, load_catalog, user_folders
from vramplan.catalog.pipelines import Entry
from vramplan.catalog.search import PROJECT_FILE
from vramplan.catalog.target_text import Target, read_target
from vramplan.engines import door
from vramplan.engines.door import Remark
from vramplan.errors import SourceError, UsageError, did_you_mean
from vramplan.model import Job, Pipeline, SettingValue
from vramplan.quick_dataclass import replace
from vramplan.settings import resolve_settings

_YAML = (".yaml", ".yml")
_SUFFIXES = (".gguf", ".safetensors")
_PREFIXES = ("hf:", "ollama:", "lmstudio:")
_OLLAMA = "ollama:"
_COMPOSE = re.compile(r"(?:docker-)?compose[\w.-]{0,80}\.ya?ml", re.IGNORECASE)
#: models in a folder that a message names
_MOST_NAMED = 5


def silent(_text: str, _done: int = 0, _total: int = 0) -> None:
    """Take a remark, or a step and how far it is, and say nothing."""


def open_catalog(folders: Sequence[str | Path] = ()) -> Catalog:
    """Return the catalogue of `folders`, of VRAMPLAN_CATALOG and of what ships."""
    return load_catalog(user_folders(folders))


def find_target(
    text: str, catalog: Catalog, mmproj: str | None = None, remark: Remark = silent
) -> Pipeline:
    """Return what a TARGET stands for: an entry by its name or in a YAML file, or a model file.

    A repository on the hub is an entry where the catalogue has one for it, which takes no network;
    what lies on this machine under a bare ``ORG/NAME`` goes before. What the catalogue does not
    know may be installed in Ollama, under ``NAME:TAG``. `mmproj` is the projector of a
    model file. Raises UsageError for a name nobody knows, and SourceError for a model that is not
    there or not usable.
    """
    if "\0" in text:
        raise UsageError(f"{text[:200]!r}: no model's name has a NUL")
    text = _plain(text, catalog)
    path = Path(text)
    if _is_known(text, catalog):
        if path.is_dir():
            remark(f"{text}: the catalogue's; the folder is ./{text}")
        return catalog.pipeline(text)
    if path.name == PROJECT_FILE:
        hint = "run vramplan check beside it, without a TARGET"
        raise UsageError(f"{text}: describes a project, not a pipeline", hint=hint)
    if _COMPOSE.fullmatch(path.name) and path.is_file():
        hint = (
            "name the model that a service loads, such as ollama:qwen3:8b or qwen3:8b[context=8k]"
        )
        raise UsageError(f"{text}: describes services, not a pipeline", hint=hint)
    if path.suffix.lower() in _YAML:
        from vramplan.catalog import load_pipeline_file

        return load_pipeline_file(path)
    if _is_place(text):
        entry = _find_repository(text, catalog)
        local = None if entry and text.startswith(_PREFIXES) else door.find_file(text, remark)
        if local is None and entry is not None:
            remark(f"{text}: the catalogue's {entry.name}")
            return entry
        if local is None:
            raise _unknown(text, catalog)
        try:
            return _open_model(local, catalog, mmproj, remark)
        except SourceError as problem:
            bare = text.partition(":")[2]
            if not bare or not _is_known(bare, catalog):
                raise
            hint = f"the catalogue has it: {bare}; {problem.hint or ''}".rstrip("; ")
            raise SourceError(str(problem), hint=hint) from None
    return _find_installed(text, catalog, mmproj, remark)


def find_named(text: str, catalog: Catalog) -> Entry:
    """Return the catalogue's entry of a name, in the quantisation that Ollama's tag names.

    Raises UsageError, with the nearest name.
    """
    return door.find_quantised(text, catalog.pipeline) or catalog.pipeline(text)


def _find_installed(text: str, catalog: Catalog, mmproj: str | None, remark: Remark) -> Pipeline:
    """Return what Ollama has installed under a name like ``NAME:TAG``, else what it stands for.

    That is a catalogued model in the quantisation of the tag. Raises UsageError for no such name.
    """
    if ":" not in text:
        alike = find_alike(text, catalog.pipelines)
        if alike is None:
            return catalog.pipeline(text)
        remark(f"{text}: the catalogue's {alike.name}")
        return alike
    if door.is_installed(text):
        return _open_model(f"{_OLLAMA}{text}", catalog, mmproj, remark)
    try:
        return find_named(text, catalog)
    except UsageError as problem:
        hint = f"{_OLLAMA}{text} looks it up in Ollama's library"
        near = problem.hint or ""
        hint = f"{near} {hint}" if near.endswith("?") else hint
        raise UsageError(str(problem), hint=hint) from None


def _open_model(text: str, catalog: Catalog, mmproj: str | None, remark: Remark) -> Pipeline:
    """Return the pipeline of a model that is saved here or elsewhere; raises SourceError."""
    entries = catalog.pipelines.values()
    saved = door.open_saved(text, entries, catalog.folders, remark)
    if saved is not None:
        return saved
    _check_folder(Path(text))
    from vramplan.sources.denoiser_file import DenoiserError, from_gguf

    try:
        return door.open_file(text, mmproj, remark)
    except DenoiserError as problem:
        found = door.open_denoiser(from_gguf(problem.file), entries, catalog.folders, remark)
        if found is None:
            raise
        return found


def _check_folder(folder: Path) -> None:
    """Raise SourceError for a folder without a model of its own that has some below, with those."""
    from vramplan.ask.folders import saved_in

    if not folder.is_dir() or any(folder.glob("*.gguf")):
        return
    below = list(islice(saved_in(folder), _MOST_NAMED + 1))
    if below:
        more = ", …" if len(below) > _MOST_NAMED else ""
        hint = f"name one: {', '.join(map(str, below[:_MOST_NAMED]))}{more}"
        raise SourceError(f"{folder}: no model itself, but some are in it", hint=hint)


def _is_place(text: str) -> bool:
    """Return whether a TARGET says where a model is, here or elsewhere, and is no mere name."""
    path = Path(text)
    is_file = path.suffix.lower() in _SUFFIXES or path.is_dir() or path.is_file()
    return is_file or "/" in text or text.startswith(_PREFIXES)


def _plain(text: str, catalog: Catalog) -> str:
    """Return a TARGET without what an address has around it: ``hf:ORG/NAME`` for its page.

    A folder of the hub's cache stands for the revision in it.
    A page of Ollama's library stands for the catalogue's entry of that name, where there is one.
    """
    if "models--" in text:
        from vramplan.sources.hub_cache import snapshot_in

        revision = snapshot_in(Path(text))
        return text if revision is None else str(revision)
    if "/" not in text:
        return text
    from vramplan.sources.hub_address import read_address

    address = read_address(text)
    if address is None:
        return text
    name = address.removeprefix(_OLLAMA)
    return name if name != address and _is_known(name, catalog) else address


#: how like a catalogued repository what names none is: others have an owner and a name too
_LIKENESS = 0.75


def _find_repository(text: str, catalog: Catalog) -> Entry | None:
    from vramplan.sources.hub_address import repository_named

    repository = repository_named(text)
    return catalog.repository(repository) if repository else None


def _unknown(text: str, catalog: Catalog) -> UsageError:
    """Return the error for an ``ORG/NAME`` that is neither here nor in the catalogue."""
    from vramplan.sources.hub_address import repository_named

    if text.startswith((".", "/", "~")):
        return UsageError(f"{text}: no such file or folder")
    repository = repository_named(text)
    near = did_you_mean(text, (*catalog.pipelines, *catalog.repositories), likeness=_LIKENESS)
    on_hub = (
        f"a model on the hub is hf:{repository}, a GGUF file there hf:{repository}:FILE.gguf"
        if repository
        else None
    )
    hint = " ".join(one for one in (near, on_hub) if one) or "vramplan catalog list shows them"
    return UsageError(f"unknown pipeline {text!r}", hint=hint)


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
    """Return each of `targets` with `overrides` over its defaults, and its own settings over both.

    Raises UsageError that names the target which does not have one of the settings.
    """
    read = [read_target(text) for text in targets]
    found = [find_target(one.text, catalog, mmproj, remark) for one in read]
    if mmproj is not None and sum(not isinstance(one, Entry) for one in found) != 1:
        hint = "name one .gguf file, folder or model with it"
        raise UsageError("--mmproj belongs to one model file", hint=hint)
    jobs = [
        job_of(pipeline, one)
        for pipeline, one in zip(open_pipelines(found, catalog), read, strict=True)
    ]
    return [
        _with_common(job, one, overrides, len(read)) for job, one in zip(jobs, read, strict=True)
    ]


def job_of(pipeline: Pipeline, target: Target) -> Job:
    """Return a pipeline as a TARGET asks for it, with the settings that are its own.

    Raises UsageError, which names it, for one that it does not have or does not take.
    """
    job = Job(pipeline=pipeline, settings=pipeline.defaults, target=target.text, name=target.name)
    try:
        return override(job, target.settings)
    except UsageError as problem:
        said = str(problem)
        named = said if said.startswith(pipeline.name) else f"{target.label}: {said}"
        raise UsageError(at(target, named), hint=problem.hint) from None


def at(target: Target, message: str) -> str:
    """Return a message about a target, behind its place in the file that it stands in."""
    return f"{target.place}: {message}" if target.place else message


def _with_common(job: Job, target: Target, common: Mapping[str, SettingValue], count: int) -> Job:
    """Return a job with what is meant for all of `count` targets, under the settings of its own."""
    left = {key: value for key, value in common.items() if key not in target.settings}
    try:
        return override(job, left)
    except UsageError as problem:
        if count == 1 or not left.keys() - job.settings.keys():
            raise
        hint = f"{problem.hint}; for one target alone: 'TARGET[KEY=VALUE]'"
        raise UsageError(str(problem), hint=hint) from None


def override(job: Job, settings: Mapping[str, SettingValue]) -> Job:
    """Return `job` with `settings` over its own; raises UsageError for one it does not have."""
    return job.changed(resolve_settings(job.pipeline, {**job.settings, **settings}))


def make_lenient_jobs(
    pipelines: Sequence[Pipeline],
    targets: Sequence[Target],
    settings: Mapping[str, SettingValue],
    where: str,
) -> list[Job]:
    """Return each of `pipelines` as its target asks for it, with those of `settings` that it has.

    For settings that are not meant for each one by name; a target's own go before them. Raises
    UsageError, which starts with `where` they stand, for one that no pipeline has.
    """
    for key in settings:
        if not any(key in pipeline.defaults for pipeline in pipelines):
            names = ", ".join(pipeline.name for pipeline in pipelines)
            raise UsageError(f"{where}: none of the targets has a setting {key!r}", hint=names)
    return [
        lenient_job(pipeline, target, settings)
        for pipeline, target in zip(pipelines, targets, strict=True)
    ]


def lenient_job(pipeline: Pipeline, target: Target, settings: Mapping[str, SettingValue]) -> Job:
    """Return a pipeline as a TARGET asks for it, with those of `settings` under it that it has.

    Raises UsageError for a value that it does not take.
    """
    kept = {key: value for key, value in settings.items() if key in pipeline.defaults}
    return job_of(pipeline, replace(target, settings={**kept, **target.settings}))


def home_of(pipeline: Pipeline) -> Path:
    """Return the catalogue folder that a pipeline's file is in: its tape is in ``tapes`` there."""
    folder = Path(pipeline.path or ".").parent
    return folder.parent if folder.name == "pipelines" else folder
