"""What nvidia-smi prints of ``--query-gpu`` and ``--query-compute-apps``, in any order and number.

Processes are joined to their GPU by what the query asked for: UUID or PCI bus. Where the headings
were left out (``noheader``), the query itself names the columns if it is in the text; else they are
told by what stands in them, which is said, and where that is not certain the sizes stay untold.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass, field

from vramplan.measurement.reading import ProcessMemory
from vramplan.probe.smi_report import (
    MOST_GPUS,
    MOST_PROCESSES,
    SmiGpu,
    SmiReport,
    counted,
    last_of,
    unread_remark,
)
from vramplan.probe.smi_sizes import size_bytes, whole_number
from vramplan.units import MIB, format_size

_MOST_CELLS = 200
_LONGEST_LINE = 4000
_MOST_UNREAD = 1000
_MOST_LINES = 20_000
_MOST_HEAD = 100

#: nvidia-smi --query-gpu=index,name,memory.used --format=csv,noheader
_QUERY = re.compile(r"--query-(gpu|compute-apps|compute_apps|apps)[= ]([a-z0-9_.,]{1,2000})")
_COLUMN = re.compile(r"^([a-z][a-z0-9_]{0,40}(?:\.[a-z0-9_]{1,40}){0,4})(?: \[[^\]]{1,8}\])?$")
_TELLING = frozenset(
    ("pid", "used_memory", "used_gpu_memory", "memory.total", "memory.used", "memory.free")
)
_KNOWN = _TELLING | {
    "count", "driver_version", "gpu_bus_id", "gpu_name", "gpu_uuid", "index", "memory.reserved",
    "name", "pci.bus_id", "process_name", "serial", "temperature.gpu", "timestamp",
    "utilization.gpu", "utilization.memory", "uuid",
}  # fmt: skip
#: GPU 0: NVIDIA GeForce RTX 3060 (UUID: GPU-…)
_LISTED = re.compile(r"^\s*GPU ([0-9]{1,3}): (.{1,80}?) \(UUID: (GPU-[0-9A-Za-z-]{1,60})\)\s*$")
_UUID = re.compile(r"(?:GPU|MIG)-[0-9A-Za-z/-]{3,80}")
_BUS = re.compile(r"(?:[0-9A-Fa-f]{4,8}:)?[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9]")
_GPU_NAME = re.compile(
    r"NVIDIA|GeForce|Tesla|Quadro|\b[RG]TX\b|TITAN|GRID|nvgpu|\b[AHLBT][0-9]{1,3}[GXS]?\b",
    re.IGNORECASE,
)
_WITH_UNIT = re.compile(r"\d{1,9}\s+[KMG]i?B", re.ASCII)
_UNTOLD = re.compile(
    r"\[?(N/A|Not Supported|Unknown Error|Insufficient Permissions)\]?", re.IGNORECASE
)
#: smaller than any card's memory, larger than a percentage or a temperature: in MiB
_LEAST_CARD = 1000
_LARGEST_PERCENT = 120


@dataclass(slots=True)
class _Row:
    """A GPU's row while it is read."""

    cells: dict[str, str]
    place: int
    processes: list[ProcessMemory] = field(default_factory=list)
    lists_processes: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """What names this GPU in the rows of processes."""
        uuid = self.cells.get("uuid", self.cells.get("gpu_uuid", ""))
        bus = self.cells.get("pci.bus_id", self.cells.get("gpu_bus_id", ""))
        return tuple(key.lower() for key in (uuid, bus) if key)

    @property
    def identity(self) -> str:
        """What is the same in the next look at this GPU."""
        return (*self.keys, self.cells.get("index", ""), str(self.place))[0] or str(self.place)

    def as_gpu(self) -> SmiGpu:
        """Return what the row says."""
        cells = self.cells
        total, used = size_bytes(cells.get("memory.total")), size_bytes(cells.get("memory.used"))
        free, reserved = (size_bytes(cells.get(f"memory.{what}")) for what in ("free", "reserved"))
        if used is None and total is not None and free is not None and total >= free:
            used = total - free - (reserved or 0)
        index = whole_number(cells.get("index"), 3)
        told = (cells.get(key, "") for key in ("memory.used", "memory.total", "memory.free"))
        why = next((found[0] for cell in told if (found := _UNTOLD.search(cell))), None)
        return SmiGpu(
            index=self.place if index is None else index,
            name=(cells.get("name") or cells.get("gpu_name") or "GPU")[:80],
            uuid=cells.get("uuid") or cells.get("gpu_uuid"),
            total_bytes=total,
            used_bytes=used,
            free_bytes=free,
            reserved_bytes=reserved,
            processes=tuple(self.processes) if self.processes or self.lists_processes else None,
            untold=None if used is not None else why or cells.get("untold"),
        )


def has_heading(text: str) -> bool:
    """Return whether a row of headings is in the text: it is CSV beyond doubt."""
    return _Reader(text).headings > 0


def read_csv(text: str, capacities: Container[int] = ()) -> SmiReport:
    """Return what the last look at each GPU says, with the processes joined to their GPU.

    `capacities` are cards' memories in MiB as the driver tells them: a number without a heading and
    without a name beside it is a card's total where it is one of these.
    """
    return _Reader(text, capacities).report()


class _Reader:
    """The rows of a text, read in order."""

    def __init__(self, text: str, capacities: Container[int] = ()) -> None:
        self._capacities = capacities
        self.rows: list[_Row] = []
        self.waiting: list[dict[str, str]] = []  # processes, with what names their GPU
        self.listed: list[dict[str, str]] = []
        self.headings = 0
        self._looks = 1
        self._time: str | None = None
        self._columns: list[str] = []
        self._asked: list[list[str]] = []
        self._guessed: set[str] = set()
        self._unread: list[str] = []
        self._pids: set[tuple[str, str]] = set()
        lines = [bare[:_LONGEST_LINE] for line in text.splitlines() if (bare := line.strip())]
        self._skipped = max(0, len(lines) - _MOST_LINES)
        if self._skipped:  # a loop that ran long: its headings, and its end
            lines = [*lines[:_MOST_HEAD], *lines[_MOST_HEAD - _MOST_LINES :]]
        for line in lines:
            self._line(line)

    def _line(self, line: str) -> None:
        if found := _LISTED.match(line):
            if len(self.listed) < MOST_GPUS:
                self.listed.append({"index": found[1], "name": found[2], "uuid": found[3]})
            return
        if asked := _QUERY.findall(line):
            self._asked += [names.strip(",").split(",") for _, names in asked[:4]]
            self._columns = []
            return
        try:
            words = next(csv.reader([line], skipinitialspace=True), [])[:_MOST_CELLS]
        except csv.Error:
            return
        cells = [word.strip() for word in words]
        if _is_heading(cells):
            self._columns = [cell.split(" [")[0] for cell in cells]
            self.headings += 1
        elif row := self._named(cells):
            self._take(row)
        elif self._columns and len(cells) > 1:
            self._unread += [line] if len(self._unread) < _MOST_UNREAD else []

    def _named(self, cells: list[str]) -> dict[str, str] | None:
        """Return the cells under their columns' names, or None for what is no row."""
        if self._columns:
            cells = _one_name(self._columns, cells)
            fits = len(cells) == len(self._columns)
            return dict(zip(self._columns, cells, strict=True)) if fits else None
        for names in self._asked:
            if len(names) == len(cells) and _fits(names, cells):
                return dict(zip(names, cells, strict=True))
        guess = guess_row(cells, self._capacities)
        if guess is not None:
            self._guessed.update(key for key in guess if key.startswith(("memory.", "used_")))
        return guess

    def _take(self, row: dict[str, str]) -> None:
        if "pid" in row:
            self._process(row)
        elif len(self.rows) < MOST_GPUS:
            self._gpu(row)

    def _gpu(self, row: dict[str, str]) -> None:
        if not any(key in _KNOWN or key == "untold" for key in row):
            return
        new = _Row(row, len(self.rows))
        known = {one.identity for one in self.rows}
        stamp, last = (one.get("timestamp", "")[:19] for one in (row, self._last()))
        is_numbered = bool(new.keys or row.get("index"))
        if new.identity in known or (not is_numbered and stamp != last and bool(self.rows)):
            self.rows, self._looks = [], self._looks + 1
            self.waiting, self._pids, new.place = [], set(), 0
        self._time = stamp or None
        self.rows.append(new)

    def _last(self) -> dict[str, str]:
        return self.rows[-1].cells if self.rows else {}

    def _process(self, row: dict[str, str]) -> None:
        if whole_number(row["pid"], 10) is None:
            return
        key = (_gpu_key(row), row["pid"])
        if key in self._pids:  # the list begins anew
            self.waiting, self._pids = [], set()
            if not self.rows:
                self._looks += 1
        self._pids.add(key)
        if len(self.waiting) < MOST_PROCESSES:
            self.waiting.append(row)

    def report(self) -> SmiReport:
        """Return what was read, each process on its GPU."""
        rows = self.rows or [_Row(one, place) for place, one in enumerate(self.listed)]
        unnamed = len(rows) > 1 and not any(one.keys or one.cells.get("index") for one in rows)
        homeless = self._bring_home(rows)
        self._take_names(rows)
        remarks = [*last_of(self._looks, self._time), *self._guess_remark()]
        if unnamed:
            remarks.append(f"{len(rows):,} rows without index or UUID: each is taken for a GPU")
        if homeless:
            remarks.append(
                f"{counted(homeless, 'process', 'processes')} not read: the text does not say on "
                "which GPU (--query-compute-apps=gpu_uuid,pid,process_name,used_memory does)"
            )
        if self._skipped:
            skipped = counted(self._skipped, "line")
            remarks.append(f"{skipped} in the middle not read: {_MOST_LINES:,} are")
        driver = next((one.cells.get("driver_version") for one in rows), None)
        return SmiReport(
            gpus=tuple(one.as_gpu() for one in rows),
            driver=driver[:20] if driver else None,
            remarks=(*remarks, *unread_remark(self._unread)),
        )

    def _bring_home(self, rows: list[_Row]) -> int:
        """Put each process on its GPU; a GPU that is not listed gets a row.

        Returns the number of processes of which the text does not say where they are.
        """
        homes = {key: row for row in rows for key in row.keys}
        is_one = len({_gpu_key(one).lower() for one in self.waiting}) == 1
        homeless = 0
        for process in self.waiting:
            key = _gpu_key(process).lower()
            home = homes.get(key)
            if home is None and len(rows) == 1 and (not key or (is_one and not rows[0].keys)):
                home = rows[0]
            if home is None and (key or not rows):
                home = self._new_home(process, rows)
            if home is None:
                homeless += 1
                continue
            homes.update(dict.fromkeys(home.keys, home))
            home.lists_processes = True
            home.processes.append(_process_of(process))
        return homeless

    def _new_home(self, process: dict[str, str], rows: list[_Row]) -> _Row | None:
        """Return a new row for the GPU that a process names, or None where there are too many."""
        if len(rows) >= MOST_GPUS:
            return None
        key = _gpu_key(process)
        named = {"uuid" if key.lower().startswith(("gpu-", "mig-")) else "pci.bus_id": key}
        if process.get("gpu_name"):
            named["name"] = process["gpu_name"]
        rows.append(_Row(named if key else {}, len(rows)))
        return rows[-1]

    def _take_names(self, rows: list[_Row]) -> None:
        """Give a row what ``nvidia-smi -L`` says of its UUID."""
        names = {one["uuid"].lower(): one for one in self.listed}
        for row in rows:
            for key in row.keys:
                row.cells = {**names.get(key, {}), **row.cells}

    def _guess_remark(self) -> list[str]:
        if not self._guessed:
            return []
        told = []
        if self.rows:
            cells = self.rows[0].cells
            told = [
                f"{format_size(size)} for {key}"
                for key in ("memory.total", "memory.used")
                if (size := size_bytes(cells.get(key))) is not None
            ]
        shown = f": {' and '.join(told)} taken" if told else ""
        return [f"the columns have no headings and are told by what is in them{shown}"]


def _is_heading(cells: Sequence[str]) -> bool:
    names = [found[1] for cell in cells if (found := _COLUMN.match(cell))]
    if len(names) != len(cells) or not names:
        return False
    known = sum(name in _KNOWN for name in names)
    return bool(_TELLING & set(names)) or known > 1


def _one_name(columns: Sequence[str], cells: list[str]) -> list[str]:
    """Return the cells with a process's name in one: nvidia-smi quotes no comma in it."""
    surplus = len(cells) - len(columns)
    if surplus <= 0 or "process_name" not in columns:
        return cells
    place = columns.index("process_name")
    name = ", ".join(cells[place : place + surplus + 1])
    return [*cells[:place], name, *cells[place + surplus + 1 :]]


def _fits(names: Sequence[str], cells: Sequence[str]) -> bool:
    """Return whether cells may stand under these columns: a pid and sizes are numbers."""
    return all(
        size_bytes(cell) is not None or _UNTOLD.fullmatch(cell) is not None
        for name, cell in zip(names, cells, strict=True)
        if name in _TELLING
    )


def _gpu_key(process: dict[str, str]) -> str:
    return process.get("gpu_uuid") or process.get("uuid") or process.get("gpu_bus_id") or ""


def _process_of(row: dict[str, str]) -> ProcessMemory:
    return ProcessMemory(
        pid=int(row["pid"]),
        name=(row.get("process_name") or row.get("name") or "")[:200],
        used_bytes=size_bytes(row.get("used_gpu_memory", row.get("used_memory"))),
        kind="C",
    )


# ------------------------------------------------------------------------------------ no headings
def guess_row(cells: Sequence[str], capacities: Container[int] = ()) -> dict[str, str] | None:
    """Return cells without headings under the names they must have, or None for no row of ours.

    A GPU's total is its largest size; which of three sizes is used and which is free is told by
    nothing, so such a row has ``untold`` for its memory.
    """
    if len(cells) < 2:
        return None
    row: dict[str, str] = {}
    rest: list[tuple[int, str]] = []
    for place, cell in enumerate(cells):
        if _UUID.fullmatch(cell):
            row.setdefault("uuid", cell)
        elif _BUS.fullmatch(cell):
            row.setdefault("pci.bus_id", cell)
        else:
            rest.append((place, cell))
    names = [
        (place, cell)
        for place, cell in rest
        if re.search(r"[A-Za-z]{2}|^[-\[]", cell)
        and not _WITH_UNIT.fullmatch(cell)
        and not _UNTOLD.fullmatch(cell)
    ]
    gpu_name = next((cell for _, cell in names if _GPU_NAME.search(cell) and "/" not in cell), None)
    if gpu_name is None and names:
        return _guess_process(row, rest, names[0])
    if gpu_name is not None:
        row["name"] = gpu_name
    return _guess_gpu(row, rest, gpu_name, capacities)


def _guess_process(
    row: dict[str, str], rest: list[tuple[int, str]], name: tuple[int, str]
) -> dict[str, str] | None:
    """Return a process's row: pid, name, what it holds."""
    before = [
        cell for place, cell in rest if place < name[0] and whole_number(cell, 10) is not None
    ]
    after = [
        cell
        for place, cell in rest
        if place > name[0] and (size_bytes(cell) is not None or _UNTOLD.fullmatch(cell))
    ]
    if not before or len(after) != 1:
        return None
    named = {"gpu_uuid": row["uuid"]} if "uuid" in row else {}
    return {**named, "pid": before[-1], "process_name": name[1], "used_memory": after[0]}


def _guess_gpu(
    row: dict[str, str],
    rest: list[tuple[int, str]],
    name: str | None,
    capacities: Container[int],
) -> dict[str, str] | None:
    """Return a GPU's row: its total is the largest size, what is used the one that is left."""
    with_unit = [cell for _, cell in rest if _WITH_UNIT.fullmatch(cell)]
    bare = [cell for _, cell in rest if whole_number(cell) is not None]
    is_ours = name is not None or "uuid" in row
    if is_ours and bare and rest[0][0] == 0 and rest[0][1] == bare[0] and len(bare[0]) < 4:
        row, bare = {**row, "index": bare[0]}, bare[1:]
    if not is_ours and len(with_unit) == len(bare) == 1:  # nothing but a pid and what it holds
        return {"pid": bare[0], "process_name": "", "used_memory": with_unit[0]}
    sizes = [size for cell in with_unit or bare if (size := size_bytes(cell)) is not None]
    largest = max(sizes, default=0)
    is_card = largest >= _LEAST_CARD * MIB
    if not is_ours and not (is_card and (len(with_unit) > 1 or largest // MIB in capacities)):
        return None
    if not is_card:
        untold = next((cell for _, cell in rest if _UNTOLD.fullmatch(cell)), None)
        return None if untold is None else {**row, "untold": untold}
    used = _used_of(sizes if with_unit else _not_percent(sizes, largest), largest)
    if used is None:
        return {**row, "untold": "sizes without headings, of which used is not told from free"}
    total = {"memory.total": f"{largest // MIB} MiB", "memory.used": f"{used // MIB} MiB"}
    return {**row, **total}


def _not_percent(sizes: list[int], largest: int) -> list[int]:
    """Return the numbers that are no percentage or temperature, if that leaves one beside it."""
    if len(sizes) == 2:
        return sizes
    large = [size for size in sizes if size > _LARGEST_PERCENT * MIB]
    return large if len(large) > 1 and largest in large else sizes


def _used_of(sizes: list[int], largest: int) -> int | None:
    """Return the one size beside the largest, or None where there are none or several."""
    others = list(sizes)
    others.remove(largest)
    return others[0] if len(others) == 1 else None
