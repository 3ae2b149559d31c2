"""``python -m vramplan`` is the command line, and so is ``vramplan``."""

from __future__ import annotations

import gc

from vramplan import late_corners, quick_import
from vramplan.quick_typing import NoReturn

#: most of what a command makes it needs to its end: looked through less often than by default
_GARBAGE = 50_000


def start() -> NoReturn:
    """Be the process that its arguments ask for; see `cli.start`."""
    gc.set_threshold(_GARBAGE)
    quick_import.install()
    late_corners.load("argparse", "gettext")
    late_corners.load("pathlib", "urllib.parse")
    late_corners.load_json()
    from vramplan.cli import start

    start()


if __name__ == "__main__":
    start()
