"""Who is who among the processes that a driver lists."""

from __future__ import annotations

from pathlib import Path

from vramplan.measurement.reading import DeviceMemory, ProcessMemory

_PROC = Path("/proc")


def own_process(
    memory: DeviceMemory, pid: int, *, before: DeviceMemory | None = None, proc: Path = _PROC
) -> ProcessMemory | None:
    """Return the listed process that is ours, whose number here is `pid`; None where it is not.

    In a container the driver lists the host's numbers. They are found in the kernel's list of a
    process's numbers where it shows them; else the one process that was not there `before` is ours.
    """
    listed = {one.pid: one for one in memory.processes or ()}
    for number in (pid, *_numbers(pid, proc)):
        if number in listed:
            return listed[number]
    if before is None or before.processes is None:
        return None
    known = {one.pid for one in before.processes}
    fresh = [one for one in listed.values() if one.pid not in known]
    return fresh[0] if len(fresh) == 1 else None


def _numbers(pid: int, proc: Path) -> list[int]:
    """Return a process's numbers in every namespace this one can see (``NSpid`` of proc(5))."""
    try:
        text = (proc / str(pid) / "status").read_text(errors="replace")
    except OSError:
        return []
    line = next((line for line in text.splitlines() if line.startswith("NSpid:")), "")
    return [int(word) for word in line.split()[1:] if word.isascii() and word.isdigit()]


def neighbours_moved(before: DeviceMemory, after: DeviceMemory) -> int:
    """Return by how many bytes others moved between two looks at a card that we are not on.

    The largest change of a single process counts, and of the card as a whole: two neighbours that
    move against each other moved all the same.
    """
    changes = [abs(after.used_bytes - before.used_bytes)]
    if before.processes is not None and after.processes is not None:
        first = {one.pid: one.used_bytes for one in before.processes}
        last = {one.pid: one.used_bytes for one in after.processes}
        changes += [
            abs((last.get(pid) or 0) - (first.get(pid) or 0)) for pid in first.keys() | last.keys()
        ]
    return max(changes)
