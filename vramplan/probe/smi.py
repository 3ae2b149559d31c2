"""What nvidia-smi prints, in each of its forms: its table, its log, its CSV and its XML.

The text may be pasted by a stranger: its length and its lists are bounded, and XML that declares
entities is refused. Sizes are whole MiB there, so they are right to one MiB.
"""

from __future__ import annotations

import csv
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET

from vramplan.errors import MeasurementError
from vramplan.measurement.reading import DeviceMemory, ProcessMemory
from vramplan.probe.smi_query import MARK, read_query
from vramplan.units import MIB

_LONGEST = 1 << 20
_MOST_PROCESSES = 10_000
_SECONDS = 20

_NOT_SMI = "not what nvidia-smi prints"
_HINT = "paste its table, or the output of nvidia-smi -q, -q -x or --query-gpu=... --format=csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class SmiGpu:
    """A GPU as nvidia-smi lists it; a form that does not tell the UUID has none."""

    index: int
    name: str
    memory: DeviceMemory
    uuid: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SmiReport:
    """What was printed: at least one GPU."""

    gpus: tuple[SmiGpu, ...]
    driver: str | None = None


def read_smi(uuid: str) -> str | None:
    """Return what nvidia-smi says of a GPU now, or None where it is not there or fails."""
    command = ["nvidia-smi", "-i", uuid]
    try:
        done = subprocess.run(  # found on the PATH, as a person would run it
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None


def used_bytes(text: str) -> int | None:
    """Return what nvidia-smi's report of one GPU says is used, or None where it does not."""
    try:
        return read_report(text).gpus[0].memory.used_bytes
    except MeasurementError:
        return None


def read_report(text: str) -> SmiReport:
    """Return what a report of nvidia-smi says, whichever its form.

    Raises MeasurementError for other text.
    """
    if len(text) > _LONGEST:
        raise MeasurementError(f"{_NOT_SMI}: {len(text):,} characters", hint=_HINT)
    if not text.strip():
        raise MeasurementError(f"{_NOT_SMI}: it is empty", hint=_HINT)
    if "<nvidia_smi_log" in text:
        report = _read_xml(text)
    elif MARK in text:
        report = _read_tree(read_query(text))
    elif "NVIDIA-SMI" in text:
        report = _read_table(text)
    else:
        report = _read_csv(text)
    if not report.gpus and "MIG devices:" in text:
        hint = "the driver does not tell the whole card's memory to a MIG instance"
        raise MeasurementError("nvidia-smi's report has MIG devices only", hint=hint)
    if not report.gpus:
        raise MeasurementError(f"{_NOT_SMI}: no GPU with its memory is in it", hint=_HINT)
    return report


# ------------------------------------------------------------------------------------------ table
_DRIVER = re.compile(r"Driver Version:\s*([0-9.]{1,20})")
#: |   0  NVIDIA GeForce RTX 3060        Off | 00000000:01:00.0  On |                  N/A |
_GPU_LINE = re.compile(
    r"^\|\s{1,4}(\d{1,3})\s+(\S[^|]{0,80}?)\s+(?:On|Off|N/A|WDDM|TCC|MCDM|ERR!)\s*"
    r"\|\s*[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:"
)
#: | 30%   45C    P8    15W / 170W |    512MiB / 12288MiB |      0%      Default |
_MEMORY = re.compile(r"\|\s*(\d{1,9})\s*MiB\s*/\s*(\d{1,9})\s*MiB\s*\|")
#: |    0   N/A  N/A      1234      G   /usr/lib/xorg/Xorg         123MiB |  (before 450: no N/A)
_PROCESS = re.compile(
    r"^\|\s+(\d{1,3})\s+(?:(?:N/A|\d{1,2})\s+(?:N/A|\d{1,2})\s+)?(\d{1,10})\s+"
    r"([CG][+CGM]{0,4})\s+(\S[^|]{0,200}?)\s+(N/A|\d{1,9}\s?MiB)\s*\|"
)


@dataclass(slots=True)
class _Listed:
    """A GPU of the table while it is read."""

    index: int
    name: str
    used: int = -1
    total: int = -1
    processes: list[ProcessMemory] = field(default_factory=list)


def _read_table(text: str) -> SmiReport:
    driver = _DRIVER.search(text)
    listed: dict[int, _Listed] = {}
    under_way: _Listed | None = None
    lists_processes = False
    for line in map(str.lstrip, text.splitlines()):  # pasted text is often indented
        if found := _GPU_LINE.match(line):
            under_way = _Listed(int(found[1]), found[2])
            listed.setdefault(under_way.index, under_way)
        elif under_way is not None and under_way.used < 0 and (found := _MEMORY.search(line)):
            under_way.used, under_way.total = int(found[1]) * MIB, int(found[2]) * MIB
        elif "MIG devices:" in line:  # theirs is not the GPU's memory, which may be N/A
            under_way = None
        elif "Processes:" in line:
            lists_processes, under_way = True, None
        elif lists_processes and (found := _PROCESS.match(line)):
            _add_process(listed, int(found[1]), _process(found[2], found[3], found[4], found[5]))
    gpus = (
        SmiGpu(
            index=one.index,
            name=one.name,
            memory=DeviceMemory(
                total_bytes=one.total,
                used_bytes=one.used,
                free_bytes=one.total - one.used,
                reserved_bytes=None,
                # containers and WSL print the heading and list nobody
                processes=tuple(one.processes) if one.processes else None,
            ),
        )
        for one in listed.values()
        if one.used >= 0
    )
    return SmiReport(gpus=tuple(gpus), driver=driver[1] if driver else None)


def _add_process(listed: dict[int, _Listed], index: int, process: ProcessMemory) -> None:
    if index in listed and len(listed[index].processes) < _MOST_PROCESSES:
        listed[index].processes.append(process)


def _process(pid: str, kind: str, name: str, used: str) -> ProcessMemory:
    return ProcessMemory(pid=int(pid), name=name, used_bytes=_mebibytes(used), kind=kind)


def _mebibytes(text: str | None) -> int | None:
    """Return the bytes of ``123 MiB``; None for N/A and what else is no size."""
    found = re.fullmatch(r"\s*(\d{1,9})\s*(?:MiB)?\s*", text or "")
    return int(found[1]) * MIB if found else None


# -------------------------------------------------------------------------------------------- CSV
def _read_csv(text: str) -> SmiReport:
    """Return what ``--query-gpu`` printed, and ``--query-compute-apps`` below it."""
    gpus: list[SmiGpu] = []
    processes: list[ProcessMemory] = []
    columns: list[str] = []
    driver: str | None = None
    for words in csv.reader(text.splitlines(), skipinitialspace=True):
        cells = [word.strip() for word in words]
        if _is_header(cells):
            columns = [cell.split(" [")[0] for cell in cells]
            continue
        row = dict(zip(columns, cells, strict=False))
        if "memory.used" in row and len(gpus) < 1000:
            driver = driver or row.get("driver_version")
            gpus += _csv_gpu(row, len(gpus))
        elif "pid" in row and row["pid"].isdigit() and len(processes) < _MOST_PROCESSES:
            used = row.get("used_gpu_memory", row.get("used_memory", ""))
            processes.append(
                _process(row["pid"][:10], "C", row.get("process_name", "")[:200], used)
            )
    if processes and len(gpus) == 1:
        memory = gpus[0].memory
        with_processes = DeviceMemory(
            total_bytes=memory.total_bytes,
            used_bytes=memory.used_bytes,
            free_bytes=memory.free_bytes,
            reserved_bytes=memory.reserved_bytes,
            processes=tuple(processes),
        )
        gpus = [SmiGpu(index=0, name=gpus[0].name, uuid=gpus[0].uuid, memory=with_processes)]
    return SmiReport(gpus=tuple(gpus), driver=driver)


def _is_header(cells: Sequence[str]) -> bool:
    names = {cell.split(" [")[0] for cell in cells}
    return bool(names & {"memory.used", "memory.total", "pid"})


def _csv_gpu(row: dict[str, str], place: int) -> Iterator[SmiGpu]:
    total, used = _mebibytes(row.get("memory.total")), _mebibytes(row["memory.used"])
    if used is None or total is None:
        return
    free = _mebibytes(row.get("memory.free"))
    index = row.get("index", "")
    yield SmiGpu(
        index=int(index[:3]) if index.isdigit() else place,
        name=row.get("name", "GPU")[:80],
        uuid=row.get("uuid"),
        memory=DeviceMemory(
            total_bytes=total,
            used_bytes=used,
            free_bytes=total - used if free is None else free,
            reserved_bytes=_mebibytes(row.get("memory.reserved")),
        ),
    )


# -------------------------------------------------------------------------------------------- XML
def _read_xml(text: str) -> SmiReport:
    if "<!ENTITY" in text:  # nvidia-smi declares none; a bomb does
        raise MeasurementError(f"{_NOT_SMI}: its XML declares entities", hint=_HINT)
    try:
        root = ET.fromstring(text[text.index("<") :])  # noqa: S314  # no entities, bounded length
    except ET.ParseError as problem:
        raise MeasurementError(f"{_NOT_SMI}: damaged XML: {problem}", hint=_HINT) from None
    return _read_tree(root)


def _read_tree(root: ET.Element) -> SmiReport:
    gpus = [gpu for place, one in enumerate(root.iter("gpu")) for gpu in _xml_gpu(one, place)]
    return SmiReport(gpus=tuple(gpus), driver=root.findtext("driver_version"))


def _xml_gpu(gpu: ET.Element, place: int) -> Iterator[SmiGpu]:
    memory = gpu.find("fb_memory_usage")
    if memory is None:
        return
    total, used = _mebibytes(memory.findtext("total")), _mebibytes(memory.findtext("used"))
    if total is None or used is None:
        return
    free = _mebibytes(memory.findtext("free"))
    listed = gpu.find("processes")
    yield SmiGpu(
        index=place,
        name=(gpu.findtext("product_name") or "GPU")[:80],
        uuid=gpu.findtext("uuid"),
        memory=DeviceMemory(
            total_bytes=total,
            used_bytes=used,
            free_bytes=total - used if free is None else free,
            reserved_bytes=_mebibytes(memory.findtext("reserved")),
            processes=None if listed is None else tuple(_xml_processes(listed)),
        ),
    )


def _xml_processes(listed: ET.Element) -> Iterator[ProcessMemory]:
    for one in listed.findall("process_info")[:_MOST_PROCESSES]:
        pid = one.findtext("pid") or ""
        if pid.isdigit():
            yield _process(
                pid[:10],
                (one.findtext("type") or "C")[:8],
                (one.findtext("process_name") or "")[:200],
                one.findtext("used_memory") or "",
            )
