"""``vramplan doctor``: what is installed, what is missing and what is stale."""

from __future__ import annotations

import platform
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from vramplan import __version__
from vramplan.ask.targets import home_of
from vramplan.catalog import Catalog, profiles_dir, user_folders, validate
from vramplan.catalog.pipelines import GGML_RUNTIMES, Entry
from vramplan.catalog.search import catalog_files
from vramplan.commands import arguments
from vramplan.commands.output import write_result
from vramplan.errors import MissingError, TapeError, UsageError, VramplanError
from vramplan.units import format_size

if TYPE_CHECKING:
    from vramplan.report.sheet import Sheet

FORMATS = ("table", "json", "markdown")

#: distributions that every installation has, and those of the extra `gpu`
BASE = ("PyYAML", "tabulate", "Jinja2", "nvidia-ml-py")
EXTRA = ("torch", "diffusers", "transformers", "accelerate")

_DESCRIPTION = (
    "Look at this installation: Python, the libraries and their versions, the NVIDIA driver and "
    "its GPUs, the catalogue's folders, and whether the tapes were recorded with the versions that "
    "are installed."
)

_EPILOG = """\
states:
  `ok` as it should be;
  `note` something is missing or old, and only some commands need it;
  `broken` commands will fail: the line says what to do.

examples:
  for a bug report:
    `vramplan doctor --format markdown`

exit codes: `0` nothing is broken; `2` something is; `130` interrupted.
"""


class State(StrEnum):
    """How a thing is."""

    OK = "ok"
    NOTE = "note"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    thing: str
    state: State
    detail: str


def configure(parser: ArgumentParser) -> None:
    """Say what ``doctor`` takes."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    parser.usage = "%(prog)s [option ...]"
    arguments.add_output(parser, FORMATS)
    arguments.add_common(parser)


def run(args: Namespace) -> int:
    """Write the findings; return 2 where one of them is broken."""
    findings = list(examine(args.catalog))
    _write(args, findings)
    is_broken = any(finding.state is State.BROKEN for finding in findings)
    return VramplanError.exit_code if is_broken else 0


def examine(catalog_option: list[str]) -> Iterator[Finding]:
    """Yield what there is to say about this installation; raises nothing."""
    where = Path(__file__).parents[1]
    yield Finding(thing="vramplan", state=State.OK, detail=f"{__version__} in {where}")
    system = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    yield Finding(thing="Python", state=State.OK, detail=f"{system}, {sys.executable}")
    installed = _versions((*BASE, *EXTRA))
    yield from _libraries(installed)
    yield from _driver()
    try:
        folders = user_folders(catalog_option)
    except UsageError as problem:
        folders = []
        yield Finding(thing="catalogue", state=State.BROKEN, detail=str(problem))
    yield from _folders([*folders, profiles_dir()])
    yield _snapshot()
    yield from _tapes(folders, installed)


def _versions(names: tuple[str, ...]) -> dict[str, str]:
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
    for name in EXTRA:
        version = installed.get(name)
        detail = version or "not installed; vramplan record needs it: pip install 'vramplan[gpu]'"
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

    is_fresh = read_snapshot(profiles_dir()) is not None
    stale = "stale, so every start reads the YAML: run python -m vramplan.catalog.snapshot"
    return Finding(
        thing="snapshot",
        state=State.OK if is_fresh else State.NOTE,
        detail="fresh" if is_fresh else stale,
    )


def _tapes(folders: list[Path], installed: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what there is to say about each torch pipeline's tape."""
    from vramplan.catalog import load_catalog

    try:
        catalog = load_catalog(folders)
    except VramplanError:  # said already, with its folder
        return
    for pipeline in catalog.pipelines.values():
        if pipeline.runtime not in GGML_RUNTIMES:
            yield _tape(pipeline, catalog, installed)


def _tape(pipeline: Entry, catalog: Catalog, installed: Mapping[str, str]) -> Finding:
    from vramplan.engines.door import open_entry
    from vramplan.engines.torch.estimate import find_tape
    from vramplan.engines.torch.pipeline import of_torch
    from vramplan.engines.torch.tape.format import read_tape

    thing = f"tape of {pipeline.name}"
    try:
        folders = dict.fromkeys((home_of(pipeline), *catalog.folders))
        tape = read_tape(find_tape(of_torch(open_entry(pipeline, tuple(folders)))))
    except TapeError as problem:
        return Finding(thing=thing, state=State.BROKEN, detail=f"{problem}; {problem.hint}")
    recorded = ", ".join(f"{name} {version}" for name, version in tape.recorded_with.items())
    others = [
        f"{name} {installed[name]}"
        for name in ("diffusers", "transformers")
        if name in installed and tape.recorded_with.get(name, installed[name]) != installed[name]
    ]
    if others:
        again = f"is it still so? vramplan record {pipeline.name} --check"
        detail = f"recorded with {recorded}; installed is {', '.join(others)}; {again}"
        return Finding(thing=thing, state=State.NOTE, detail=detail)
    return Finding(thing=thing, state=State.OK, detail=f"recorded with {recorded}")


def _write(args: Namespace, findings: list[Finding]) -> None:
    def as_table(colour: bool, width: int) -> str:
        from vramplan.report.sheet import draw_sheet

        return draw_sheet(_sheet(findings), colour, width)

    def as_json(_colour: bool, _width: int) -> str:
        from vramplan.report.serial import to_json

        rows = [
            {"thing": finding.thing, "state": finding.state.value, "detail": finding.detail}
            for finding in findings
        ]
        return to_json("doctor", {"findings": [dict(row) for row in rows]})

    def as_markdown(_colour: bool, _width: int) -> str:
        from vramplan.report.sheet import mark_sheet

        return mark_sheet(_sheet(findings))

    write_result(args, {"table": as_table, "json": as_json, "markdown": as_markdown})


def _sheet(findings: list[Finding]) -> Sheet:
    from vramplan.report.colour import Tone
    from vramplan.report.rows import cell, table
    from vramplan.report.sheet import Sheet
    from vramplan.report.text import clean

    looks = {
        State.OK: ("✓ ok", Tone.FITS),
        State.NOTE: ("~ note", Tone.TIGHT),
        State.BROKEN: ("✗ broken", Tone.OOM),
    }
    rows = (
        (
            cell(clean(finding.thing, 80)),
            cell(looks[finding.state][0], tone=looks[finding.state][1]),
            cell(clean(finding.detail)),
        )
        for finding in findings
    )
    return Sheet(tables=[("", table("what, state, detail", rows))])
