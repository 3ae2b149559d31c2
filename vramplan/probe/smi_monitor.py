"""What ``nvidia-smi pmon`` and ``dmon`` print: columns below headings that begin with ``#``.

Each sample repeats the GPUs; the last one is read.
"""

from __future__ import annotations

import re

from vramplan.measurement.reading import ProcessMemory
from vramplan.probe.smi_report import MOST_PROCESSES, SmiGpu, SmiReport, last_of
from vramplan.probe.smi_sizes import size_bytes, whole_number

_HEADING = re.compile(r"^\s*#\s*(?:Date\s+Time\s+|Time\s+)?gpu\s+\S", re.IGNORECASE)
_MOST_SAMPLES = 100_000


def is_monitor(text: str) -> bool:
    """Return whether headings of a monitor are in the text."""
    return any(_HEADING.match(line) for line in text.splitlines())


def read_monitor(text: str) -> SmiReport:
    """Return the last sample: processes by GPU, or what each GPU has used."""
    columns: list[str] = []
    samples: list[list[dict[str, str]]] = [[]]
    seen: set[tuple[str, str]] = set()
    for line in text.splitlines():
        words = line.split()
        if _HEADING.match(line):
            columns = [word.lower() for word in line.replace("#", " ").split()]
        elif columns and words and not line.lstrip().startswith("#"):
            names = [*words[: len(columns) - 1], " ".join(words[len(columns) - 1 :])]
            row = dict(zip(columns, names, strict=False))
            key = (row.get("gpu", ""), row.get("pid", ""))
            if whole_number(key[0], 3) is None:
                continue
            if key in seen and len(samples) < _MOST_SAMPLES:
                samples.append([])
                seen = set()
            seen.add(key)
            samples[-1].append(row)
    return SmiReport(gpus=_gpus(samples[-1]), remarks=tuple(last_of(len(samples), None)))


def _gpus(rows: list[dict[str, str]]) -> tuple[SmiGpu, ...]:
    processes: dict[int, list[ProcessMemory]] = {}
    used: dict[int, int | None] = {}
    for row in rows:
        index = int(row["gpu"])
        pid = whole_number(row.get("pid"), 10)
        held = processes.setdefault(index, [])
        if "pid" not in row:
            used[index] = size_bytes(row.get("fb"))
        elif pid is not None and len(held) < MOST_PROCESSES:
            name = (row.get("command") or row.get("name") or "")[:200]
            kind, fb = row.get("type", "C")[:8], size_bytes(row.get("fb"))
            held.append(ProcessMemory(pid=pid, name=name, used_bytes=fb, kind=kind))
    return tuple(
        SmiGpu(
            index=index,
            name="GPU",
            used_bytes=used.get(index),
            processes=tuple(held) or None,
        )
        for index, held in processes.items()
    )
