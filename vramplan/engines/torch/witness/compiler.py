"""What compiles the stand-ins: the system's compiler, or the one in the ziglang wheel."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from vramplan.errors import MissingError

_SECONDS = 300
_FLAGS = ("-std=gnu11", "-O1", "-fPIC", "-shared", "-w")
_HINT = "install gcc or clang, or pip install ziglang; CC=COMMAND names another"


def find_compiler() -> list[str]:
    """Return the command that compiles C: CC, then the usual names, then ziglang's.

    Raises MissingError where there is none.
    """
    named = os.environ.get("CC", "").split()
    if named:
        if shutil.which(named[0]):
            return named
        message = f"CC names {named[0]}, which is not there"
        raise MissingError(message, hint=_HINT)
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return [name]
    if importlib.util.find_spec("ziglang") is not None:
        # without the last flag zig's build stops where C's rules are broken, and prints nothing
        return [sys.executable, "-m", "ziglang", "cc", "-fno-sanitize=undefined"]
    raise MissingError("no C compiler builds the pretended card", hint=_HINT)


def compile_library(
    compiler: Sequence[str], sources: Sequence[Path], made: Path, *flags: str
) -> None:
    """Compile sources into a shared library.

    Raises MissingError with the compiler's first complaint where it cannot.
    """
    command = [*compiler, *_FLAGS, "-o", str(made), *map(str, sources), *flags]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise MissingError(f"{compiler[0]} cannot be run: {problem}", hint=_HINT) from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if "error" in line]
        why = lines[0][:300] if lines else "it says nothing"
        message = f"{compiler[0]} does not build {made.name}: {why}"
        raise MissingError(message, hint=_HINT)
