"""``python -m vramplan`` is the command line, and so is ``vramplan``."""

from __future__ import annotations

from vramplan import late_corners
from vramplan.quick_typing import NoReturn


def start() -> NoReturn:
    """Be the process that its arguments ask for; see `cli.start`."""
    late_corners.load("argparse", "gettext")
    late_corners.load("pathlib", "urllib.parse")
    from vramplan.cli import start

    start()


if __name__ == "__main__":
    start()
