"""``vramplan profile``: the real components on a real GPU, measured phase by phase."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path

from vramplan.ask.events_file import events_beside
from vramplan.ask.profile import Profiled, Wishes, profile
from vramplan.ask.targets import open_catalog
from vramplan.commands import arguments
from vramplan.commands.output import choose_format, remark, show
from vramplan.commands.progress import progress_of_steps
from vramplan.commands.result_file import check_file, write_file
from vramplan.interrupts import ending_tidily
from vramplan.report import comparison, measured_run
from vramplan.report.look import Look

FORMATS = ("table", "json", "markdown", "html", "pdf", "png")


def configure(parser: ArgumentParser) -> None:
    """Say what ``profile`` takes."""
    arguments.describe(parser, "profile")
    parser.usage = "%(prog)s TARGET [--weights KIND] [--as-card CARD | --pretend CARD] [option ...]"
    parser.add_argument("target", metavar="TARGET", help=arguments.TARGET_HELP)
    parser.add_argument(
        "--weights",
        default="random",
        metavar="KIND",
        help="random (default), pretrained (the repository that the catalogue names, from the "
        "hub's cache or the hub), a FOLDER with a checkpoint, or hf:ORG/NAME; for llama.cpp a "
        ".gguf FILE",
    )
    parser.add_argument(
        "--as-card",
        metavar="CARD",
        help="play this card: a second process holds the rest of the GPU",
    )
    parser.add_argument(
        "--pretend",
        metavar="CARD",
        help="run on this card, which is not there: the CUDA build of torch over stand-ins for "
        "NVIDIA's libraries; no GPU is needed, nothing is computed on it",
    )
    parser.add_argument(
        "--gpu",
        metavar="GPU",
        help="which GPU: its index as nvidia-smi counts, or its UUID (default: the first that "
        "CUDA_VISIBLE_DEVICES leaves)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="run everything on the CPU: shows that it works, has no figures",
    )
    parser.add_argument(
        "--events",
        action="store_true",
        help="run a third time with the allocator's recorder on, and keep its events beside -o "
        "FILE, for vramplan compare FILE --events",
    )
    arguments.add_projector(parser)
    arguments.add_settings(parser)
    arguments.add_output(parser, FORMATS)
    arguments.add_common(parser)


def run(args: Namespace) -> int:
    """Measure, write what came of it beside the estimate; return 1 where the run failed."""
    path = _run_file(args)
    if args.events and path is not None:
        check_file(events_beside(path), replaces=args.force)
    wishes = Wishes(
        weights=args.weights,
        mmproj=args.mmproj,
        as_card=args.as_card,
        pretend=args.pretend,
        gpu=args.gpu,
        is_dry=args.dry_run,
        wants_events=args.events,
        run_file=path,
        command=" ".join(["vramplan", *args.words]),
    )
    catalog = open_catalog(args.catalog)
    with ending_tidily():
        with progress_of_steps(args) as progress:
            found = profile(
                args.target,
                catalog,
                arguments.given_settings(args),
                wishes,
                keep=_keeping(path, replaces=args.force),
                progress=progress,
                remark=remark,
            )
        if found.comparison is not None:
            show(args, partial(comparison.render, found.comparison))
        else:
            remark(f"no estimate beside it: {found.problem}")
            show(args, partial(measured_run.render, found.run, problem=found.problem))
    return int(found.is_broken)


def _run_file(args: Namespace) -> Path | None:
    """Return the file that the run itself will be in, if there is one."""
    is_kept = args.output and args.output != "-" and choose_format(args) == "json"
    return Path(args.output) if is_kept else None


def _keeping(path: Path | None, *, replaces: bool) -> Callable[[Profiled], None]:
    """Return what writes a run down the moment it is there: nothing later can lose it."""

    def keep(found: Profiled) -> None:
        if path is not None:
            look = Look(format="json", command="profile")
            write_file(path, measured_run.render(found.run, look), replaces=replaces)

    return keep
