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


_ASKED_OF_JSON = """
import sys, re
from vramplan import late_corners

late_corners.load_json()
import json
print(sys.modules["re"] is re, sorted(one[1] for one in re._cache if "t" in str(one[1])))
print(json.loads(' {"a": [1, 2.5e3, "\\u00e9"]} \\n'), json.dumps("\u00e9"))
from json import decoder, encoder, scanner
print(ascii(decoder.py_scanstring('a\\\\n"', 0)[0]), encoder.py_encode_basestring_ascii("\u00e9"))
print(scanner.NUMBER_RE.match("-1.5e3,").group())
print(decoder.WHITESPACE.pattern, encoder.ESCAPE.groups, hasattr(encoder.ESCAPE, "strange"))
try:
    json.loads("{,}")
except json.JSONDecodeError as error:
    print(error)
"""


def test_json_reads_and_writes_with_patterns_that_are_compiled_late() -> None:
    """In a process of its own, with the C scanner and with Python's, which has use for them."""
    done = subprocess.run(
        [
            *(sys.executable, "-I", "-S", "-c"),
            f"import sys; sys.path[:0] = {sys.path!r}\n{_ASKED_OF_JSON}",
        ],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stdout.splitlines() == [
        "True []",
        "{'a': [1, 2500.0, 'é']} \"\\u00e9\"",
        "'a\\n' \"\\u00e9\"",
        "-1.5e3",
        r"[ \t\n\r]* 0 False",
        "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
    ]


_ASKED_BESIDE_A_THREAD = """
import _thread, sys
from vramplan import late_corners

held = _thread.allocate_lock()
held.acquire()
_thread.start_new_thread(held.acquire, ())
while not _thread._count():
    pass
late_corners.load_json()
late_corners.load("argparse", "gettext")
print("json" in sys.modules, "argparse" in sys.modules)
held.release()
"""


def test_nothing_stands_in_for_a_module_beside_other_threads() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-I", "-S", "-c"),
            f"import sys; sys.path[:0] = {sys.path!r}\n{_ASKED_BESIDE_A_THREAD}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["False", "False"]


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
