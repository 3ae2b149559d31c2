"""``vramplan compare``: the estimate beside torch, NVML and nvidia-smi."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vramplan.ask.compare import compare_job, write_comparison, write_waterfall
from vramplan.ask.targets import folders_of, make_jobs, open_catalog
from vramplan.catalog import Catalog
from vramplan.commands import arguments
from vramplan.commands.arguments import given_settings
from vramplan.commands.output import note, remark
from vramplan.errors import MissingError, UsageError
from vramplan.measurement.files import SUFFIXES, find_runs, is_run_file, read_run
from vramplan.model import Job

if TYPE_CHECKING:
    from vramplan.measurement.run import Run

FORMATS = ("table", "json", "markdown", "html")

#: of a pasted text no more is read: a page of nvidia-smi has some 10 KB
_LONGEST = 1 << 20

_DESCRIPTION = (
    "Show estimate and measurement side by side, component by component and phase by phase, with "
    "each residual, and the way from the model's weights to the number that nvidia-smi shows: "
    "what is left at its end is unaccounted."
)

_EPILOG = f"""\
What is measured:
  RUN is a file that `vramplan profile TARGET -o run.json` wrote, here or on another machine;
  TARGET alone takes the runs that ship or that your --catalog has in `measured/`, at its settings;
  TARGET with --pid looks at a process that runs now, such as `ollama serve` or ComfyUI;
  TARGET with --smi reads what nvidia-smi printed, pasted into a file (- is stdin).

Residuals are measurement less estimate, in per cent of the measurement, in bands at 2, 6, 10 and
14 %. The basis of each step says whether it was measured, is the difference of two measurements,
or is the estimate's because nothing measures it apart.

--events takes the file of allocator events beside a run (`vramplan profile --events`, the campaign)
and shows, for each component in each phase, how many requests the tape has too and in which order,
the bytes that either side has alone, the first differences, and whether the allocator model, fed
with the measured events, takes the segments that torch took. Libraries' workspaces are in no tape:
they show as measured only.

examples:
  a run that was kept:
    `vramplan compare run.json`
  fail where a figure is off by more than 4 %:
    `vramplan compare run.json --tolerance 4`
  which requests for memory the tape does not have, and what it has too many:
    `vramplan compare run.json --events`
  a process that runs now:
    `vramplan compare llava:7b --context 4096 --pid 4711`
  what somebody posted:
    `nvidia-smi | vramplan compare sd15 --smi -`

exit codes: `0` shown; `1` outside --tolerance; `3` no GPU for --pid, or nothing measured to compare
with; {arguments.COMMON_EXITS}
"""


def configure(parser: ArgumentParser) -> None:
    """Say what ``compare`` takes."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    parser.usage = "%(prog)s TARGET|RUN [--pid PID | --smi FILE] [--tolerance PERCENT] [option ...]"
    parser.add_argument(
        "target",
        metavar="TARGET|RUN",
        help=f"{arguments.TARGET_HELP}; or the file of a run (.json, .json.gz)",
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--pid", type=_read_pid, metavar="PID", help="a process that runs now")
    group.add_argument(
        "--smi", metavar="FILE", help="what nvidia-smi printed: its table, CSV or XML; - is stdin"
    )
    parser.add_argument(
        "--gpu",
        metavar="GPU",
        help="which GPU --pid or --smi is about: its index or UUID (default: the one the process "
        "is on, else the first)",
    )
    parser.add_argument(
        "--tolerance",
        type=_read_percent,
        metavar="PERCENT",
        help="exit with 1 where a residual is larger: of the peaks, phases and buffers; with --pid "
        "and --smi, where more than this is unaccounted",
    )
    parser.add_argument(
        "--events",
        action="store_true",
        help="hold the run's allocator events, where it has them, against the tape, one by one",
    )
    arguments.add_settings(parser)
    arguments.add_output(parser, FORMATS)
    arguments.add_common(parser)


def run(args: Namespace) -> int:
    """Compare, write, and return 1 where a residual is outside the tolerance."""
    catalog = open_catalog(args.catalog)
    path = Path(args.target)
    if args.pid is not None or args.smi is not None:
        if is_run_file(path):
            raise UsageError(f"{path}: a run needs neither --pid nor --smi")
        if args.events:
            raise UsageError("--events needs a run: a card seen from outside tells no events")
        return _compare_now(args, catalog)
    if args.gpu is not None:
        raise UsageError("--gpu is for --pid and --smi: a run has its GPU")
    if is_run_file(path):
        _refuse_settings(args)
        found = read_run(path)
        folders: Sequence[Path] = catalog.folders
    elif path.name.endswith(SUFFIXES):
        raise UsageError(
            f"{path}: no such file", hint="vramplan profile TARGET -o run.json writes one"
        )
    else:
        (job,) = make_jobs([args.target], catalog, given_settings(args), remark=remark)
        folders = folders_of([job.pipeline], catalog)
        path, found = _measured(job, folders)
    comparison = compare_job(found, catalog)
    if args.events:
        from dataclasses import replace

        from vramplan.engines.torch.event_lists import compare_event_lists

        events = compare_event_lists(found, path, catalog, folders)
        comparison = replace(comparison, events=events)
    write_comparison(args, "compare", comparison, args.tolerance)
    return _judge(comparison.worst_percent, args.tolerance)


def _refuse_settings(args: Namespace) -> None:
    if args.settings:
        raise UsageError("a run has its settings; leave them out", hint="or name a TARGET")


def _measured(job: Job, folders: Sequence[Path]) -> tuple[Path, Run]:
    """Return the newest run at exactly these settings, and its file; says which it is.

    Raises MissingError where there is none.
    """
    runs = find_runs(folders, job.pipeline.name, job.settings)
    if not runs:
        raise MissingError(
            f"{job.pipeline.name}: no measured run at these settings",
            hint="vramplan profile measures one, --pid looks at a process, --smi reads what "
            "nvidia-smi printed",
        )
    path, found = max(runs, key=lambda pair: pair[1].created)
    others = f"; {len(runs) - 1} others at these settings" if len(runs) > 1 else ""
    note(f"note: {path}{others}")
    return path, found


def _compare_now(args: Namespace, catalog: Catalog) -> int:
    from vramplan.ask.observe import observe_process, observe_text

    (job,) = make_jobs([args.target], catalog, given_settings(args), remark=remark)
    if args.pid is not None:
        seen = observe_process(args.pid, args.gpu)
    else:
        seen = observe_text(_read_text(args.smi), args.gpu, catalog.cards.values())
    waterfall = write_waterfall(args, job, seen)
    share = 100 * abs(waterfall.unaccounted_bytes) / max(waterfall.shown_bytes, 1)
    return _judge(share, args.tolerance)


def _judge(worst: float | None, tolerance: float | None) -> int:
    if tolerance is None or worst is None or worst <= tolerance:
        return 0
    note(f"outside the tolerance: {worst:.1f} % is more than {tolerance:g} %")
    return 1


def _read_text(name: str) -> str:
    """Return what a file or stdin has, of a bounded length."""
    try:
        if name == "-":
            return sys.stdin.read(_LONGEST)
        with Path(name).open(encoding="utf-8", errors="replace") as file:
            return file.read(_LONGEST)
    except OSError as problem:
        raise UsageError(f"{name}: cannot be read: {problem.strerror}") from problem


def _read_pid(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:12]) < 1 << 32:
        raise UsageError(f"--pid: not a process's number: {text!r}")
    return int(text)


def _read_percent(text: str) -> float:
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 1000:
        raise UsageError(f"--tolerance: not a percentage: {text!r}", hint="such as 4")
    return percent
