"""The process that records a saved model: its bounds, its steps, and what became of it.

Time, memory and output are bounded. It has no GPU, no network's token and no folder but one of its
own; a crash or a time-out is a RecordingError.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from vramplan.engines.torch.libraries import QUIET, STEP
from vramplan.errors import RecordingError
from vramplan.interrupts import ending_tidily
from vramplan.units import GIB

CHILD = "vramplan.engines.torch.record.saved.recording_child"
#: FLUX.1-dev takes ten seconds and 0.6 GiB
CPU_SECONDS = 300
WALL_SECONDS = 900
MEMORY_BYTES = 12 * GIB
_MOST_BYTES = 8 << 20
_LONGEST_LINE = 500
#: what a process needs of this one's surroundings
_KEPT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "SYSTEMROOT")


def run_child(request: bytes, tell: Callable[[str], None]) -> str:
    """Return what the recording process prints for a request; `tell` hears its steps.

    Raises RecordingError where it does not print a recording.
    """
    with (
        ending_tidily(),
        tempfile.TemporaryDirectory(prefix="vramplan-") as own,
        subprocess.Popen(
            [sys.executable, "-m", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(own),
            cwd=own,
            start_new_session=True,
        ) as child,
    ):
        late = threading.Event()

        def end() -> None:
            late.set()
            child.kill()

        timer = threading.Timer(WALL_SECONDS, end)
        steps = _Steps(child, tell)
        timer.start()
        try:
            steps.start()
            text = _exchange(child, request)
            child.wait()
        finally:
            timer.cancel()
            child.kill()
            steps.join()
    if late.is_set():
        raise RecordingError(f"it was not done within {WALL_SECONDS} seconds")
    if child.returncode:
        raise RecordingError(_what_became(child.returncode, steps.last))
    return text.decode("utf-8", errors="replace")


def _exchange(child: subprocess.Popen[bytes], request: bytes) -> bytes:
    """Hand the request over, and return what is printed, bounded."""
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(request)
        child.stdin.close()
    except BrokenPipeError:  # it ended at once; its status says how
        pass
    text = child.stdout.read(_MOST_BYTES + 1)
    if len(text) > _MOST_BYTES:
        raise RecordingError(f"its tape is larger than {_MOST_BYTES >> 20} MiB")
    return text


def _what_became(status: int, last: str) -> str:
    if status < 0:
        reason = f"its process was ended by signal {-status}"
        return (
            f"{reason}, {CPU_SECONDS} seconds of CPU time are all it gets"
            if status == -24
            else reason
        )
    return last or f"its process ended with status {status}"


class _Steps(threading.Thread):
    """Hears the lines of a child's stderr, each bounded, and tells those that are steps."""

    def __init__(self, child: subprocess.Popen[bytes], tell: Callable[[str], None]) -> None:
        super().__init__(daemon=True)
        self._child = child
        self._tell = tell
        self.last = ""

    def run(self) -> None:
        """Listen until the child is gone."""
        assert self._child.stderr is not None
        while line := self._child.stderr.readline(_LONGEST_LINE):
            step = line.decode("utf-8", errors="replace").strip()
            if step:
                plain = "".join(one for one in step if one.isprintable())
                if step.startswith(STEP):
                    self._tell(plain.removeprefix(STEP))
                else:  # what libraries say, and why it failed, is no step
                    self.last = plain


def _environment(own: str) -> Mapping[str, str]:
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(str(Path(path).resolve()) for path in sys.path if path),
        "HOME": own,
        "HF_HOME": own,
        **QUIET,
        "TOKENIZERS_PARALLELISM": "false",
        "TMPDIR": own,
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }
