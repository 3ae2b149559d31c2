"""What is installed, what is missing and what is stale."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from vramplan import __version__
from vramplan.ask.cache import look
from vramplan.ask.targets import open_pipelines
from vramplan.catalog import Catalog, profiles_dir, user_folders, validate
from vramplan.catalog.search import catalog_files
from vramplan.engines.door import core_in_words, engine_of
from vramplan.errors import MissingError, TapeError, UsageError, VramplanError
from vramplan.extras import install_command
from vramplan.model import Pipeline
from vramplan.probe.finding import Finding, State
from vramplan.units import format_size

#: distributions that every installation has
BASE = ("PyYAML", "tabulate", "Jinja2", "nvidia-ml-py")
#: those of each extra, and what needs it
EXTRAS = {
    "gpu": (("torch", "diffusers", "transformers", "accelerate"), "vramplan record"),
    "engine": (("xllamacpp",), "--engine-check"),
    "parquet": (("pyarrow",), "vramplan sweep -o FILE.parquet"),
    "cluster": (("ray",), "vramplan sweep --on ray"),
    "mcp": (("mcp",), "vramplan mcp"),
}


def examine(catalog_option: Sequence[str] = ()) -> Iterator[Finding]:
    """Yield what there is to say about this installation; raises nothing."""
    where = Path(__file__).parents[1]
    yield Finding(thing="vramplan", state=State.OK, detail=f"{__version__} in {where}")
    system = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    yield Finding(thing="Python", state=State.OK, detail=f"{system}, {sys.executable}")
    yield _core()
    extras = [name for names, _ in EXTRAS.values() for name in names]
    installed = _versions((*BASE, *extras))
    yield from _libraries(installed)
    yield from _driver()
    try:
        folders = user_folders(list(catalog_option))
    except UsageError as problem:
        folders = []
        yield Finding(thing="catalogue", state=State.BROKEN, detail=str(problem))
    yield from _folders([*folders, profiles_dir()])
    yield _snapshot()
    yield _cache()
    yield from _tapes(folders, installed)


def _core() -> Finding:
    is_there, words = core_in_words()
    detail = words if is_there else f"none, replays run in Python, slower: {words}"
    state = State.OK if is_there else State.NOTE
    return Finding(thing="compiled core", state=state, detail=detail)


def _versions(names: Sequence[str]) -> dict[str, str]:
    """Return the versions of those of `names` that are installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _libraries(installed: Mapping[str, str]) -> Iterator[Finding]:
    for name in BASE:
        version = installed.get(name)
        detail = version or f"not installed: pip install {name}"
        yield Finding(thing=name, state=State.OK if version else State.BROKEN, detail=detail)
    for extra, (names, user) in EXTRAS.items():
        for name in names:
            version = installed.get(name)
            detail = version or f"not installed; {user} needs it: {install_command(extra)}"
            yield Finding(thing=name, state=State.OK if version else State.NOTE, detail=detail)


def _driver() -> Iterator[Finding]:
    from vramplan.probe.nvml import read_inventory

    try:
        inventory = read_inventory()
    except MissingError as problem:
        detail = f"{problem}; only --card auto needs one"
        yield Finding(thing="GPU", state=State.NOTE, detail=detail)
        return
    yield Finding(thing="NVIDIA driver", state=State.OK, detail=inventory.driver_version)
    for gpu in inventory.gpus:
        detail = (
            f"{gpu.name}, {format_size(gpu.total_bytes, up=False)}, "
            f"{format_size(gpu.free_bytes, up=False)} free, "
            f"compute capability {gpu.compute_capability}"
        )
        yield Finding(thing=f"GPU {gpu.index}", state=State.OK, detail=detail)
    for unread in inventory.problems:
        yield Finding(thing="GPU", state=State.NOTE, detail=unread)


def _folders(folders: list[Path]) -> Iterator[Finding]:
    for folder in folders:
        errors = validate(folder)
        pipelines, cards = catalog_files(folder)
        detail = f"{folder}: {len(pipelines)} files of pipelines, {len(cards)} of cards"
        if errors:
            more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
            detail = f"{errors[0]}{more}"
        state = State.BROKEN if errors else State.OK
        yield Finding(thing="catalogue", state=state, detail=detail)


def _snapshot() -> Finding:
    from vramplan.catalog.snapshot import read_snapshot

    found = read_snapshot(profiles_dir())
    is_fresh = found is not None and found.is_fresh()
    stale = "stale, so every start reads the YAML: run python -m tools.snapshot"
    return Finding(
        thing="snapshot",
        state=State.OK if is_fresh else State.NOTE,
        detail="fresh" if is_fresh else stale,
    )


def _cache() -> Finding:
    """Return where results are kept between runs, and how many."""
    state = look()
    if state.folder is None or state.is_off:
        why = "switched off" if state.is_off else "the system names no folder for it"
        return Finding(thing="cache", state=State.NOTE, detail=f"none: {why}")
    entries = sum(one.entries for one in state.kept)
    return Finding(thing="cache", state=State.OK, detail=f"{state.folder}: {entries:,} entries")


def _tapes(folders: list[Path], installed: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what there is to say about torch pipelines' tapes.

    Shipped ones of which the same is true share a line, and what is broken has its own.
    """
    from vramplan.catalog import load_catalog

    try:
        catalog = load_catalog(folders)
    except VramplanError:  # said already, with its folder
        return
    shipped = set(load_catalog().pipelines) if folders else set(catalog.pipelines)
    alike: dict[tuple[State, str], list[Finding]] = {}
    for name, pipeline in catalog.pipelines.items():
        finding = _tape(pipeline, catalog, installed)
        if finding is not None and name in shipped and finding.state is not State.BROKEN:
            about = finding.detail.replace(f"vramplan record {name} ", "vramplan record NAME ")
            alike.setdefault((finding.state, about), []).append(finding)
        elif finding is not None:
            yield finding
    for (state, about), found in alike.items():
        if len(found) == 1:
            yield found[0]
        else:
            yield Finding(thing="tapes", state=state, detail=f"{len(found)} {about}")


def _tape(pipeline: Pipeline, catalog: Catalog, installed: Mapping[str, str]) -> Finding | None:
    """Return what there is to say about a pipeline's tape; None where it uses none."""
    thing = f"tape of {pipeline.name}"
    try:
        (opened,) = open_pipelines([pipeline], catalog)
        versions = engine_of(opened).tape_versions(opened)
    except TapeError as problem:
        return Finding(thing=thing, state=State.BROKEN, detail=f"{problem}; {problem.hint}")
    if versions is None:
        return None
    recorded = ", ".join(f"{name} {version}" for name, version in versions.items())
    others = [
        f"{name} {installed[name]}"
        for name in ("diffusers", "transformers")
        if name in installed and versions.get(name, installed[name]) != installed[name]
    ]
    if others:
        again = f"is it still so? vramplan record {pipeline.name} --check"
        detail = f"recorded with {recorded}; installed is {', '.join(others)}; {again}"
        return Finding(thing=thing, state=State.NOTE, detail=detail)
    return Finding(thing=thing, state=State.OK, detail=f"recorded with {recorded}")
