"""The replay's core as WebAssembly: a library that Pyodide's own C library serves.

Emscripten, which Pyodide is made with, need not be there: clang and LLVM's linker make the same
kind of library (WebAssembly/tool-conventions, DynamicLinking.md), and the package ziglang has both.
Without it a plan takes half a minute in a browser, with it about a second.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

import hatch_build

#: where the core looks for itself (engines/torch/tape/native.py)
PLACE = "vramplan/engines/torch/tape/core/_core.so"

INCLUDE = Path(__file__).parent / "include"
_COMPILE = (
    *("cc", "-target", "wasm32-freestanding", "-c", "-O3", "-std=c99", "-fPIC"),
    *("-fvisibility=hidden", "-fno-sanitize=all", "-isystem", str(INCLUDE)),
)
_LINK = ("wasm-ld", "-shared", "--experimental-pic", "--allow-undefined", "--strip-debug")


def can_build() -> bool:
    """Return whether the compiler is installed."""
    return importlib.util.find_spec("ziglang") is not None


def build() -> bytes:
    """Return the library; raises CalledProcessError where the compiler refuses."""
    zig = (sys.executable, "-m", "ziglang")
    with tempfile.TemporaryDirectory() as scratch:
        objects = []
        for source in hatch_build.sources():
            if source.suffix != ".c":
                continue
            made = Path(scratch, source.stem).with_suffix(".o")
            named = f"-DVRAMPLAN_SOURCES={hatch_build.checksum()}"
            subprocess.run([*zig, *_COMPILE, named, str(source), "-o", str(made)], check=True)
            objects.append(str(made))
        library = Path(scratch, "core.so")
        subprocess.run([*zig, *_LINK, "-o", str(library), *objects], check=True)
        return library.read_bytes()
