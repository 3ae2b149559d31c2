"""``vramplan doctor``: what is installed, what is missing and what is stale."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from functools import partial

from vramplan.ask.doctor import examine
from vramplan.commands import arguments
from vramplan.commands.output import show
from vramplan.errors import VramplanError
from vramplan.report.doctor import render

FORMATS = ("table", "json", "markdown")

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
    show(args, partial(render, findings))
    return VramplanError.exit_code if any(one.is_broken for one in findings) else 0
