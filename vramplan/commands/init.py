"""``vramplan init``: a project's first file."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from vramplan.catalog.search import PROJECT_FILE
from vramplan.commands import arguments
from vramplan.commands.output import remark
from vramplan.commands.progress import progress
from vramplan.commands.result_file import check_file, write_file
from vramplan.commands.streams import write_stdout


def configure(parser: ArgumentParser) -> None:
    """Say what ``init`` takes."""
    arguments.describe(parser, "init")
    parser.usage = "%(prog)s [TARGET ...] [--card CARD ...] [--force] [option ...]"
    parser.add_argument(
        "targets",
        nargs="*",
        metavar="TARGET",
        help=f"{arguments.TARGET_HELP}. Without one: the models that are found in this folder, "
        "else those of Ollama, LM Studio and the hub's cache, else a sample",
    )
    arguments.add_cards(parser, "this machine's GPUs by name, or 8gb and 12gb where it has none")
    parser.add_argument(
        "--force", action="store_true", help=f"replace the {PROJECT_FILE} that is there"
    )
    arguments.add_common(parser)


def run(args: Namespace) -> int:
    """Write the file; return 0."""
    from vramplan.ask.begin import begin
    from vramplan.report import project_file

    path = Path(PROJECT_FILE)
    check_file(path, replaces=args.force)
    with progress(args) as step:
        beginning = begin(args.targets, args.cards, remark, step, catalog=args.catalog)
    text = project_file.render(beginning)
    write_file(path, text, replaces=args.force)
    write_stdout(project_file.closing(beginning, PROJECT_FILE))
    return 0
