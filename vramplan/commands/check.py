"""``vramplan check``: a verdict per pipeline and card."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vramplan.ask.cards import choose_cards, choose_default_cards, drawn_cards
from vramplan.ask.check import judge_each, judge_together
from vramplan.ask.targets import (
    Job,
    find_target,
    folders_of,
    given_settings,
    make_jobs,
    make_lenient_jobs,
    open_catalog,
    override,
)
from vramplan.catalog import CardChoice, Catalog, load_catalog, user_folders
from vramplan.catalog.search import PROJECT_FILE
from vramplan.commands import arguments
from vramplan.commands.output import write_result
from vramplan.errors import UsageError
from vramplan.model import Estimate, Verdict, VerdictKind

if TYPE_CHECKING:
    from vramplan.compare.witness import Witness

FORMATS = ("table", "json", "markdown", "html")

_DESCRIPTION = (
    "Say for each TARGET and each card whether it fits, at which need, against which budget, and "
    "where in the run memory is tightest. Without a TARGET, what ./vramplan.yaml describes is "
    "judged. Needs no GPU, no weights and no network."
)

_EPILOG = f"""\
verdicts:
  `fits` even the high end of the estimate is within the budget;
  `tight` the expected need is within the budget, the high end is not;
  `offload` it runs, but partly from system memory, and slowly;
  `oom` it fails for want of memory, in the phase and component that are named.

budget = capacity - system reserved - other processes - margin. The offload risk is the
probability that the need exceeds it.

examples:
  two pipelines on two classes of card:
    `vramplan check sd15 llava:7b --card 8gb --card 12gb`
  other settings:
    `vramplan check sd15 --image 768x768 --batch 2 --card rtx-3060-12gb`
  both at once on this machine's GPU:
    `vramplan check sd15 llava:7b --together --card auto`
  for a script:
    `vramplan check llava:7b --kv-type q8_0 --card 8gb --margin 500MiB --json`

exit codes: `0` everything fits or is tight (see --fail-on); `1` something does not; `3` no GPU
for --card auto; {arguments.COMMON_EXITS}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """What is to be judged on what, from the command line or from a project's file."""

    jobs: Sequence[Job]
    choices: Sequence[CardChoice]
    folders: Sequence[Path]
    is_together: bool


def configure(parser: ArgumentParser) -> None:
    """Say what ``check`` takes."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    parser.usage = "%(prog)s [TARGET ...] [--card CARD ...] [option ...]"
    parser.add_argument(
        "targets",
        nargs="*",
        metavar="TARGET",
        help=f"{arguments.TARGET_HELP}. Without one: what ./vramplan.yaml describes",
    )
    arguments.add_cards(parser, "this machine's GPUs, or 8gb and 12gb where it has none")
    parser.add_argument(
        "--together",
        action="store_true",
        help="judge the targets loaded side by side on one card, a process each",
    )
    arguments.add_budget(parser)
    parser.add_argument(
        "--fail-on",
        choices=[kind.value for kind in VerdictKind if kind is not VerdictKind.FITS],
        default=VerdictKind.OFFLOAD.value,
        help="the mildest verdict that exits with 1: tight, offload or oom (default: offload)",
    )
    arguments.add_projector(parser)
    parser.add_argument(
        "--engine-check",
        action="store_true",
        help="let the real llama.cpp (the extra engine) plan each .gguf file for each card, and "
        "show its layers and buffers beside ours; no card and no weights are needed (Linux)",
    )
    arguments.add_settings(parser)
    arguments.add_output(parser, FORMATS)
    arguments.add_common(parser)


def run(args: Namespace) -> int:
    """Judge, write the verdicts, and return 1 where one of them is a failure."""
    if args.engine_check:
        _refuse_engine(args)
    question = _read_project(args) if not args.targets else _read_arguments(args)
    ask = judge_together if question.is_together else judge_each
    verdicts, estimates = ask(
        question.jobs, question.choices, question.folders, args.margin, args.other
    )
    witnesses = _ask_engine(question, verdicts, estimates) if args.engine_check else []
    _write(args, question.choices, verdicts, estimates, witnesses)
    order = list(VerdictKind)
    limit = order.index(VerdictKind(args.fail_on))
    return int(any(order.index(verdict.kind) >= limit for verdict in verdicts))


def _refuse_engine(args: Namespace) -> None:
    if args.format == "html" or (args.output or "").lower().endswith((".html", ".htm")):
        raise UsageError("--engine-check has no page", hint="leave --format html out")
    if args.together:
        raise UsageError("--engine-check looks at each target alone", hint="leave --together out")


def _ask_engine(
    question: _Question, verdicts: Sequence[Verdict], estimates: Sequence[Estimate]
) -> list[Witness]:
    """Return what the engine does on each verdict's card."""
    from vramplan.engines.ggml.witness.side_by_side import ask_on_card

    jobs = [job for job in question.jobs for _ in question.choices]
    return [ask_on_card(*one) for one in zip(jobs, verdicts, estimates, strict=True)]


def _read_arguments(args: Namespace) -> _Question:
    catalog = open_catalog(args)
    jobs = make_jobs(args.targets, catalog, given_settings(args), args.mmproj)
    return _Question(
        jobs=jobs,
        choices=_choose(args.cards, catalog),
        folders=folders_of(jobs, catalog),
        is_together=args.together,
    )


def _read_project(args: Namespace) -> _Question:
    """Return what ./vramplan.yaml asks, with the command line's options over it."""
    path = Path(PROJECT_FILE)
    if not path.is_file():
        hint = "name one, such as: vramplan check sd15 --card 8gb"
        raise UsageError(f"no TARGET, and no {PROJECT_FILE} here", hint=hint)
    from vramplan.catalog.project import load_project

    project = load_project(path)
    own = [project.catalog] if project.catalog else []
    catalog = load_catalog(user_folders([*args.catalog, *own]), inline=project.pipelines)
    pipelines = [find_target(text, catalog) for text in project.targets]
    lenient = make_lenient_jobs(pipelines, project.settings, PROJECT_FILE)
    jobs = [override(job, given_settings(args)) for job in lenient]
    return _Question(
        jobs=jobs,
        choices=_choose(args.cards or project.cards, catalog),
        folders=folders_of(jobs, catalog),
        is_together=args.together or project.is_together,
    )


def _choose(cards: Sequence[str], catalog: Catalog) -> list[CardChoice]:
    return choose_cards(cards, catalog) if cards else choose_default_cards(catalog)


def _write(
    args: Namespace,
    choices: Sequence[CardChoice],
    verdicts: Sequence[Verdict],
    estimates: Sequence[Estimate],
    witnesses: Sequence[Witness],
) -> None:
    def as_table(colour: bool, width: int) -> str:
        from vramplan.report.tables import render_check

        drawn = render_check(verdicts, estimates, colour=colour, width=width)
        if not witnesses:
            return drawn
        from vramplan.report.engine_witness import draw_witness

        return drawn + "".join(draw_witness(one, colour, width) for one in witnesses)

    def as_json(_colour: bool, _width: int) -> str:
        from vramplan.report.serial import check_result, to_json

        result = check_result(verdicts)
        if witnesses:
            from vramplan.report.engine_witness import witness_object

            result["engines"] = [witness_object(one) for one in witnesses]
        return to_json("check", result)

    def as_markdown(_colour: bool, _width: int) -> str:
        from vramplan.report.markdown import render_check

        marked = render_check(verdicts, estimates)
        if not witnesses:
            return marked
        from vramplan.report.engine_witness import mark_witness

        return "\n".join([marked, *(mark_witness(one) for one in witnesses)])

    def as_html(_colour: bool, _width: int) -> str:
        from vramplan.report.html import render_report

        return render_report(estimates, verdicts, drawn_cards(choices))

    writers = {"table": as_table, "json": as_json, "markdown": as_markdown, "html": as_html}
    write_result(args, writers)
