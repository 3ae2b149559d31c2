"""Starts a program of ours that runs the real engine, in a process of its own.

The engine ends a process that it dislikes, and reads the environment of one that it runs in: such a
program sees no more of ours than where Python finds its modules.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from vramplan.quick_typing import IO


def start(
    arguments: Sequence[str], *, stdout: int, stderr: int | IO[bytes]
) -> subprocess.Popen[bytes]:
    """Return Python, started with these arguments; it reads nothing, and has its own session."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        env={
            "PATH": "",
            "GGML_NO_BACKTRACE": "1",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        },
        start_new_session=True,
    )
