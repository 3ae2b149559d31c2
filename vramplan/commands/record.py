"""``vramplan record``: the tape of a torch pipeline, recorded without weights and without a GPU."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from vramplan.ask.targets import find_target, home_of, open_catalog
from vramplan.catalog import profiles_dir
from vramplan.catalog.pipelines import GGML_RUNTIMES, Entry
from vramplan.commands import arguments
from vramplan.commands.output import note, remark, write_file, write_stdout
from vramplan.engines.torch.libraries import QUIET, require_libraries
from vramplan.errors import UsageError
from vramplan.model import Pipeline

_DESCRIPTION = (
    "Build TARGET's real classes without weights, run the pipeline's own code on tensors without "
    "data, and write down every allocation as a tape. Needs torch (its CPU build is enough), "
    "diffusers and transformers; needs no GPU and downloads nothing."
)

_EPILOG = f"""\
The tape goes into the folder `tapes` of the catalogue that the pipeline is from: profiles/tapes
in a checkout, DIR/tapes for a catalogue of yours, and beside a YAML file that is named by itself.
Its path is printed on stdout, the progress on stderr. Recording twice gives the same bytes.

examples:
  after an update of diffusers:
    `vramplan record sd15`
  is the tape still what the installed versions do?
    `vramplan record sd15 --check`
  a pipeline of yours:
    `vramplan record ./my-vae.yaml -o tapes/my-vae.json`

exit codes: `0` written, or as it was; `1` --check found a difference; `3` torch, diffusers or
transformers is not installed; {arguments.COMMON_EXITS}
"""


def configure(parser: ArgumentParser) -> None:
    """Say what ``record`` takes."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    parser.usage = "%(prog)s TARGET [-o FILE] [--check] [option ...]"
    parser.add_argument("target", metavar="TARGET", help=arguments.TARGET_HELP)
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="write the tape to FILE (default: in the folder tapes of the pipeline's catalogue)",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; exit with 1 where the tape is not what would be recorded now",
    )
    arguments.add_common(parser)


def run(args: Namespace) -> int:
    """Record and write the tape; return 1 where ``--check`` finds that it differs."""
    pipeline = find_target(args.target, open_catalog(args.catalog), remark=remark)
    if pipeline.runtime in GGML_RUNTIMES:
        hint = "its buffers follow from its model file: vramplan estimate " + pipeline.name
        raise UsageError(f"{pipeline.name}: {pipeline.runtime} runs it, no tape is used", hint=hint)
    path = _tape_path(pipeline, args.output)
    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    require_libraries("recording")
    text = _record(pipeline, sys.stderr)
    if args.check:
        return _compare(path, text)
    if args.output == "-":
        write_stdout(text)
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, text)
    note(f"{len(text) / 1024:,.0f} KiB")
    write_stdout(f"{path}\n")
    return 0


def _tape_path(pipeline: Pipeline, output: str | None) -> Path:
    """Return where the tape belongs; raises UsageError for one that ships in an installation."""
    if output is not None:
        return Path(output)
    home = home_of(pipeline)
    if home == profiles_dir() and home.name == "_profiles":
        hint = "say where with -o FILE; --catalog DIR finds it in DIR/tapes"
        raise UsageError(f"{pipeline.name}: its tape is part of the installed vramplan", hint=hint)
    name = pipeline.text("tape") if isinstance(pipeline, Entry) else None
    return home / "tapes" / f"{name or pipeline.name}.json"


def _record(pipeline: Pipeline, stream: TextIO) -> str:
    from vramplan.engines.door import open_entry
    from vramplan.engines.torch.pipeline import of_torch
    from vramplan.engines.torch.record.recipes.registry import recipe_for
    from vramplan.engines.torch.record.recorder import record_tape
    from vramplan.engines.torch.tape.format import write_tape

    opened = open_entry(pipeline, ()) if isinstance(pipeline, Entry) else pipeline
    show = _rewrite_line(stream) if stream.isatty() else _print_sessions(stream)
    try:
        tape = record_tape(pipeline.name, recipe_for(of_torch(opened)), show)
    finally:
        show("")
    return write_tape(tape)


def _rewrite_line(stream: TextIO) -> Callable[[str], None]:
    """Return what shows a step on a terminal: one line that changes, and goes with an empty one."""

    def show(step: str) -> None:
        stream.write(f"\r\x1b[2K{step[:79]}")
        stream.flush()

    return show


def _print_sessions(stream: TextIO) -> Callable[[str], None]:
    """Return what shows a step in a log: hundreds of runs, of which each kind gets one line."""
    shown: set[str] = set()

    def show(step: str) -> None:
        kind = step.partition("  run ")[0]
        if kind and kind not in shown:
            shown.add(kind)
            print(f"recording: {kind}", file=stream, flush=True)

    return show


def _compare(path: Path, text: str) -> int:
    """Return 0 where the file at `path` has this text, else 1 and say so."""
    try:
        known = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        note(f"{path}: no such tape")
        return 1
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(f"{path}: cannot be read: {problem}") from problem
    if known != text:
        note(f"{path}: not what is recorded now; make it anew with vramplan record")
        return 1
    return 0
