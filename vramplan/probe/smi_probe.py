"""nvidia-smi asked again and again while something runs: quickly, and no more once it fails."""

from __future__ import annotations

import shutil
import subprocess

from vramplan.errors import MeasurementError
from vramplan.measurement.reading import DeviceMemory
from vramplan.probe.smi import read_report
from vramplan.quick_dataclass import dataclass

_TOOL = "nvidia-smi"
#: it answers in a fraction of a second; a run waits no longer than this, once
_SECONDS = 3.0
#: what is kept of its words; the processes of a crowded card are cut off
_LONGEST = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SmiLook:
    """One answer of nvidia-smi: its words, and the card's memory as they tell it."""

    text: str
    memory: DeviceMemory


class SmiProbe:
    """Asks nvidia-smi about the GPU with this UUID: its memory and who holds it, in one call.

    `problem` says why it is asked no more; where the tool is not installed there is none to tell.
    nvidia-smi needs no CUDA context: asking takes no device memory.
    """

    def __init__(self, uuid: str, *, limit_s: float = _SECONDS) -> None:
        # -d goes with the log, not with XML (man nvidia-smi)
        self._command = [_TOOL, "-i", uuid, "-q", "-d", "MEMORY,PIDS"]
        self._limit_s = limit_s
        self._is_there = shutil.which(_TOOL) is not None
        self.problem: str | None = None

    def look(self) -> SmiLook | None:
        """Return what nvidia-smi says now, or None where it is not there or has failed."""
        if not self._is_there or self.problem is not None:
            return None
        try:
            text = self._ask()
            memory = read_report(text).gpus[0].memory
        except MeasurementError as problem:
            self.problem = str(problem)
            return None
        if memory is None:
            self.problem = "it does not tell the card's memory"
            return None
        return SmiLook(text=text[:_LONGEST], memory=memory)

    def _ask(self) -> str:
        try:
            done = subprocess.run(  # found on the PATH, as a person would run it
                self._command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=self._limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise MeasurementError(f"it took longer than {self._limit_s:g} s") from None
        except OSError as problem:
            raise MeasurementError(f"it cannot be started: {problem.strerror}") from None
        if done.returncode != 0:
            said = (done.stderr.strip() or done.stdout.strip())[:200]
            raise MeasurementError(f"it ended with exit code {done.returncode}: {said}")
        return done.stdout
