"""nvidia-smi's report of GPUs, read whichever its form: table, log, XML, CSV or monitor.

The text may be pasted by a stranger: its length and its lists are bounded, and XML that declares
entities is refused. Sizes are whole MiB there, so they are right to one MiB.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Container

from vramplan.errors import MeasurementError
from vramplan.probe.smi_csv import has_heading, read_csv
from vramplan.probe.smi_failure import failure_in
from vramplan.probe.smi_monitor import is_monitor, read_monitor
from vramplan.probe.smi_query import is_log, read_log
from vramplan.probe.smi_report import SmiGpu, SmiReport
from vramplan.probe.smi_table import is_table, read_table
from vramplan.probe.smi_tree import XML_MARK, read_xml
from vramplan.probe.wrappings import clean_paste
from vramplan.quick_dataclass import replace

__all__ = ["SmiGpu", "SmiReport", "read_report", "read_smi", "used_bytes"]

#: of a report no more is read: the table of a machine with 8 GPUs has some 10 KB
LONGEST = 1 << 20
_SECONDS = 20

NOT_SMI = "not what nvidia-smi prints"
_HINT = "paste its table, or the output of nvidia-smi -q, -q -x or --query-gpu=... --format=csv"
_ASK = (
    "nvidia-smi --query-gpu=index,uuid,name,memory.total,memory.used --format=csv tells it, "
    "--query-compute-apps=gpu_uuid,pid,process_name,used_memory who holds it"
)
_UNIFIED = (
    "where a GPU shares the host's memory (GB10, Jetson) nvidia-smi does not count it: the list of "
    "processes does, or torch's out-of-memory message"
)

_CSV = "CSV"

_FORMS: tuple[tuple[str, Callable[[str], bool], Callable[[str], SmiReport]], ...] = (
    ("XML", lambda text: XML_MARK in text, read_xml),
    ("a log (-q)", is_log, read_log),
    ("a table", is_table, read_table),
    ("a monitor's columns", is_monitor, read_monitor),
)


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
        return read_report(text).gpus[0].used_bytes
    except MeasurementError:
        return None


def read_report(text: str, capacities: Container[int] = ()) -> SmiReport:
    """Return what a report of nvidia-smi says, whichever its form: at least one size.

    Of several forms in one text the first of the list above that tells a size is read, and the
    others are named in its remarks. `capacities` are cards' memories in MiB, for CSV without
    headings. Raises MeasurementError for other text; its message tells what nvidia-smi did not
    print from what it printed and tells no memory, and repeats its own errors.
    """
    if len(text) > LONGEST:
        raise MeasurementError(f"{NOT_SMI}: {len(text):,} characters", hint=_HINT)
    if not text.strip():
        raise MeasurementError(f"{NOT_SMI}: it is empty", hint=_HINT)
    text = clean_paste(text)
    there = [(name, read_form) for name, is_there, read_form in _FORMS if is_there(text)]
    there.append((_CSV, lambda text: read_csv(text, capacities)))
    found: SmiReport | None = None
    for place, (name, read_form) in enumerate(there):
        report = read_form(text)
        if report.tells_something:
            others = [one for one, _ in there[place + 1 :] if one != _CSV or has_heading(text)]
            return _with_remarks(report, name, others, text)
        if found is None and (report.gpus or name != _CSV):
            found = report
    raise _problem(text, found)


def _with_remarks(report: SmiReport, name: str, others: list[str], text: str) -> SmiReport:
    """Return the report, which also says what else is in the text."""
    remarks = list(report.remarks)
    if others:
        remarks.append(f"{name} is read; the text also has {' and '.join(others)}: not read")
    if said := failure_in(text):
        remarks.append(f"nvidia-smi also says: {said[0]}")
    return replace(report, remarks=tuple(remarks))


def _problem(text: str, read: SmiReport | None) -> MeasurementError:
    """Return the error that says what the text is and what it lacks."""
    if said := failure_in(text):
        return MeasurementError(f"nvidia-smi itself failed: {said[0]}", hint=said[1])
    if read is None:
        if "nvidia-smi" in text.lower():
            message = "nvidia-smi is named, but nothing of what it prints of GPUs is in the text"
            return MeasurementError(f"{NOT_SMI}: {message}", hint=_HINT)
        return MeasurementError(f"{NOT_SMI}: no GPU with its memory is in it", hint=_HINT)
    if not read.gpus:
        cut = f": {read.remarks[0]}" if read.remarks else ""
        return MeasurementError(f"nvidia-smi's, but no GPU is in it{cut}", hint=_ASK)
    one = next((gpu for gpu in read.gpus if gpu.untold), read.gpus[0])
    why = f": there it says {one.untold!r}" if one.untold else ""
    message = f"nvidia-smi's, but it lacks the memory of {one.name} and of its processes{why}"
    is_unified = (one.untold or "").strip("[]") in ("Not Supported", "N/A")
    return MeasurementError(message, hint=_UNIFIED if is_unified else _ASK)
