"""What a module of the standard library takes from another is there when it is called."""

from __future__ import annotations

import subprocess
import sys

_ASKED = """
import sys
from vramplan import late_corners

late_corners.load("pathlib", "urllib.parse")
late_corners.load("argparse", "gettext")
import argparse, pathlib
print("urllib.parse" in sys.modules, "ipaddress" in sys.modules, "gettext" in sys.modules)
print(pathlib.PurePosixPath("/a b").as_uri(), argparse.ngettext("one", "many", 2))
import urllib.parse
late_corners.load("shelve", "gettext")
print(urllib.parse.quote("a b"), "shelve" in sys.modules)
"""


def test_a_corner_is_loaded_when_it_is_called() -> None:
    """In a process of its own: here both have been loaded long ago."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{_ASKED}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "False False False",
        "file:///a%20b many",
        "a%20b False",
    ]
