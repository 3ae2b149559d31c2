"""The table that nvidia-smi prints, of drivers 3xx to 6xx, with MIG devices and processes.

Bars may be doubled, spaces lost, lines broken at a terminal's width. A text may have several
tables, one below the other (``nvidia-smi -l``, ``watch``, before and after): the last is read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from vramplan.measurement.reading import ProcessMemory
from vramplan.probe.smi_report import (
    MOST_GPUS,
    MOST_PROCESSES,
    SmiGpu,
    SmiReport,
    last_of,
    unread_remark,
)
from vramplan.probe.smi_sizes import size_bytes

_LONGEST_LINE = 400
_MOST_UNREAD = 1000

_HEADING = re.compile(r"NVIDIA-SMI\s+(?:version\s*:?\s*)?v?[0-9]")
#: up to driver 600 "Driver Version", since 610 "KMD Version"
_DRIVER = re.compile(r"(?:Driver|KMD) Version\s*:\s*([0-9.]{1,20})")
_TIME = re.compile(r"^[A-Z][a-z]{2} [A-Z][a-z]{2} +\d{1,2} (\d\d:\d\d:\d\d) (?:[A-Z]{2,5} )?\d{4}")
_BARS = re.compile(r"\|{2,}")
_INDEX = re.compile(r"^\s*(\d{1,3})\s+(\S.*)$", re.ASCII)
#: 00000000:01:00.0, 0000:01:00.0; Jetson has N/A there
_BUS = re.compile(r"^\s*(?:[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:|N/A\b)")
_MODE = re.compile(r"\s+(?:On|Off|N/A|WDDM|TCC|MCDM|ERR!|Enabled|Disabled)\s*$")
_USAGE = re.compile(r"^\s*([0-9]{1,9}\s*[KMG]i?B)\s*/\s*([0-9]{1,9}\s*[KMG]i?B)\s*$")
_INSTANCE = re.compile(r"^\s*(\d{1,3})\s+(\d{1,3})\s+(\d{1,3})\s+(\d{1,3})\s*$", re.ASCII)
_PROCESS = re.compile(
    r"^(\d{1,3})\s+(?:(N/A|\d{1,3})\s+(?:N/A|\d{1,3})\s+)?(\d{1,10})\s+(\S.*)$", re.ASCII
)
#: C, G, C+G, M+C (a client of the Multi-Process Service)
_KIND = re.compile(r"^([A-Z](?:\+[A-Z]){0,3})(?:\s+|$)")
_HELD = re.compile(r"(?:^|\s|(?<=\D))(N/A|\[N/A\]|[0-9]{1,9}\s?[KMG]i?B)$")
#: | Processes: |, and before 330 | Compute processes: |
_LIST = re.compile(r"^\|+\s*(?:Compute p|P)rocesses:")
_NOBODY = re.compile(r"No running .*processes found|Not Supported", re.IGNORECASE)


@dataclass(slots=True)
class _Memory:
    """A GPU or an instance of one while it is read."""

    index: int
    name: str
    instance: int | None = None
    used: int | None = None
    total: int | None = None
    untold: str | None = None
    processes: list[ProcessMemory] = field(default_factory=list)
    instances: dict[int, _Memory] = field(default_factory=dict)

    def as_gpu(self) -> SmiGpu:
        """Return what was read; containers and WSL print the heading and list nobody."""
        return SmiGpu(
            index=self.index,
            name=self.name,
            instance=self.instance,
            total_bytes=self.total,
            used_bytes=self.used,
            processes=tuple(self.processes) or None,
            instances=tuple(one.as_gpu() for one in self.instances.values()),
            untold=self.untold,
        )


@dataclass(slots=True)
class _Table:
    """One table while it is read."""

    driver: str | None = None
    time: str | None = None
    gpus: dict[int, _Memory] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)

    def as_report(self) -> SmiReport:
        """Return what was read of this table."""
        return SmiReport(
            gpus=tuple(one.as_gpu() for one in self.gpus.values()),
            driver=self.driver,
            remarks=tuple(unread_remark(self.unread)),
        )


def is_table(text: str) -> bool:
    """Return whether a line of a table is in the text."""
    return bool(_HEADING.search(text)) or any(
        _gpu_of(_cells(line)) or _LIST.match(line.strip())
        for line in text.splitlines()
        if "|" in line
    )


def read_table(text: str) -> SmiReport:
    """Return what the last table in the text says that says anything."""
    reader = _Reader()
    for line in _joined(text.splitlines()):
        reader.take(line)
    read = [(table, table.as_report()) for table in reader.tables]
    told = [pair for pair in read if pair[1].tells_something]
    table, report = (told or read)[-1]
    return SmiReport(
        gpus=report.gpus,
        driver=report.driver,
        remarks=(*last_of(len(told), table.time), *report.remarks),
    )


def _joined(lines: list[str]) -> list[str]:
    """Return the lines, those put together that a narrow terminal or a mail has broken."""
    whole: list[str] = []
    for line in lines:
        text = line.strip()[:_LONGEST_LINE]
        if (
            whole
            and whole[-1].startswith("|")
            and not whole[-1].endswith("|")
            and text.endswith("|")
            and not text.startswith(("|", "+"))
        ):
            whole[-1] = f"{whole[-1]} {text}"[:_LONGEST_LINE]
        elif text:
            whole.append(text)
    return whole


def _cells(line: str) -> list[str]:
    """Return what stands between a line's bars; a bar may be doubled."""
    return _BARS.sub("|", line.strip()).strip("|").split("|")


def _gpu_of(cells: list[str]) -> tuple[int, str] | None:
    """Return the index and the name of a GPU's first line, or None for another line."""
    if len(cells) < 2 or not _BUS.match(cells[1]):
        return None
    found = _INDEX.match(cells[0])
    if found is None:
        return None
    return int(found[1]), _MODE.sub("", found[2]).strip()[:80]


class _Reader:
    """Where in a text of tables a line stands."""

    def __init__(self) -> None:
        self.tables = [_Table()]
        self._time: str | None = None
        self._part = "gpus"
        self._gpu: _Memory | None = None

    def take(self, line: str) -> None:
        """Take one line down."""
        if found := _TIME.match(line):
            self._time = found[1]
        elif _HEADING.search(line):
            self._begin()
            driver = _DRIVER.search(line)
            self._table.driver = driver[1] if driver else None
        elif "MIG devices:" in line:
            self._part, self._gpu = "instances", None
        elif _LIST.match(line):
            self._part, self._gpu = "processes", None
        elif line.startswith("|"):
            self._row(line)

    @property
    def _table(self) -> _Table:
        return self.tables[-1]

    def _begin(self) -> None:
        if self._table.gpus:
            self.tables = [*self.tables[-MOST_GPUS:], _Table()]
        self._table.time, self._part, self._gpu = self._time, "gpus", None

    def _row(self, line: str) -> None:
        cells = _cells(line)
        gpu = _gpu_of(cells)
        if gpu is not None:
            if self._part != "gpus" or gpu[0] in self._table.gpus:  # its heading is not there
                driver = self._table.driver
                self._begin()
                self._table.driver = driver
            self._gpu = _Memory(*gpu)
            if len(self._table.gpus) < MOST_GPUS:
                self._table.gpus[self._gpu.index] = self._gpu
        elif self._part == "instances":
            self._instance(line, cells)
        elif self._part == "processes":
            self._process(line, cells)
        elif self._gpu is not None and self._gpu.used is None and self._gpu.untold is None:
            self._usage(self._gpu, cells)
        elif _INDEX.match(cells[0]):
            self._unread(line)

    def _usage(self, gpu: _Memory, cells: list[str]) -> None:
        """Take the second line of a GPU: its second cell has the memory, or why it is not told."""
        for cell in cells:
            if found := _USAGE.match(cell):
                gpu.used, gpu.total = size_bytes(found[1]), size_bytes(found[2])
                return
        gpu.untold = cells[1].strip()[:40] or "nothing" if len(cells) > 1 else "nothing"

    def _instance(self, line: str, cells: list[str]) -> None:
        """Take a line of a MIG device; compute instances of one GPU instance share its memory."""
        found = _INSTANCE.match(cells[0])
        if found is None:
            if _INDEX.match(cells[0]):
                self._unread(line)
            return
        gpu = self._table.gpus.get(int(found[1]))
        if gpu is None:
            self._unread(line)
            return
        number = int(found[2])
        one = gpu.instances.setdefault(number, _Memory(gpu.index, gpu.name, number))
        usage = _USAGE.match(cells[1]) if len(cells) > 1 else None
        if usage is not None and one.used is None:
            one.used, one.total = size_bytes(usage[1]), size_bytes(usage[2])

    def _process(self, line: str, cells: list[str]) -> None:
        body = " | ".join(cells).strip()
        if not body[:1].isdigit() or _NOBODY.search(body[-60:]):
            return
        found = _PROCESS.match(body)
        held = _HELD.search(found[4][-24:]) if found else None
        if found is None or held is None or len(self._table.gpus) >= MOST_GPUS:
            self._unread(line)
            return
        # the list of processes may have been pasted alone
        number = int(found[1])
        gpu = self._table.gpus.setdefault(number, _Memory(number, "GPU"))
        words = found[4][: len(found[4]) - len(held[0])].strip()
        kind = _KIND.match(words)
        process = ProcessMemory(
            pid=int(found[3]),
            name=(words[kind.end() :] if kind else words).strip()[:200],
            used_bytes=size_bytes(held[1]),
            kind=kind[1] if kind else "C",
        )
        holder = gpu.instances.get(int(found[2])) if (found[2] or "N/A") != "N/A" else gpu
        for one in {id(gpu): gpu, id(holder): holder}.values():
            if one is not None and len(one.processes) < MOST_PROCESSES:
                one.processes.append(process)

    def _unread(self, line: str) -> None:
        if len(self._table.unread) < _MOST_UNREAD:
            self._table.unread.append(line)
