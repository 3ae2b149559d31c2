"""What ``nvidia-smi -q -x`` prints, and ``nvidia-smi -q`` as the tree of the same facts.

A text may have several, one after the other: the last is read. Of one that is cut off, the GPUs
that are whole are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast
from xml.etree import ElementTree as ET

from vramplan.errors import MeasurementError
from vramplan.measurement.reading import ProcessMemory
from vramplan.probe.smi_report import MOST_GPUS, MOST_PROCESSES, SmiGpu, SmiReport, last_of
from vramplan.probe.smi_sizes import size_bytes, whole_number

XML_MARK = "<nvidia_smi_log"
_END = "</nvidia_smi_log>"
_CUT = "the text ends in the middle of the report: what stands before is read"


def read_xml(text: str) -> SmiReport:
    """Return what the last XML document in the text says.

    Raises MeasurementError for one that declares entities: nvidia-smi declares none, a bomb does.
    """
    if "<!ENTITY" in text:
        raise MeasurementError("not what nvidia-smi prints: its XML declares entities")
    parts = text.split(XML_MARK)[1:]
    number, read = 0, SmiReport(gpus=())
    for part in parts[-MOST_GPUS:]:
        one = _read_document(XML_MARK + part)
        if one.tells_something:
            number, read = number + 1, one
        elif not number:
            read = one
    last = last_of(number, None)
    return SmiReport(gpus=read.gpus, driver=read.driver, remarks=(*last, *read.remarks))


def _read_document(text: str) -> SmiReport:
    whole = _END in text
    document = text[: text.index(_END) + len(_END)] if whole else text
    parser: ET.XMLPullParser[ET.Element] = ET.XMLPullParser(
        ("start", "end")
    )  # no entities, bounded length
    root: ET.Element | None = None
    gpus: list[ET.Element] = []
    try:
        parser.feed(document)
        events = cast("Iterable[tuple[str, ET.Element]]", parser.read_events())
        for event, element in events:
            root = element if root is None else root
            if event == "end" and element.tag == "gpu" and len(gpus) < MOST_GPUS:
                gpus.append(element)
    except ET.ParseError:
        whole = False
    if root is None:
        return SmiReport(gpus=(), remarks=(_CUT,))
    return _report(root, gpus, () if whole else (_CUT,))


def read_tree(root: ET.Element) -> SmiReport:
    """Return what a tree says whose GPUs are its ``gpu`` elements."""
    return _report(root, root.findall("gpu"), ())


def _report(root: ET.Element, gpus: list[ET.Element], remarks: tuple[str, ...]) -> SmiReport:
    driver = root.findtext("driver_version") or root.findtext("kmd_version")
    return SmiReport(
        gpus=tuple(_gpu(one, place) for place, one in enumerate(gpus)),
        driver=driver[:20] if driver else None,
        remarks=remarks,
    )


def _gpu(gpu: ET.Element, place: int) -> SmiGpu:
    name = (gpu.findtext("product_name") or "GPU")[:80]
    listed = gpu.find("processes")
    pairs = [] if listed is None else list(_processes(listed))
    instances: dict[int, SmiGpu] = {}
    devices = gpu.find("mig_devices")
    for one in [] if devices is None else devices.findall("mig_device")[:MOST_GPUS]:
        number = whole_number(one.findtext("gpu_instance_id"), 3)
        if number is None or number in instances:  # compute instances share their memory
            continue
        held = tuple(process for instance, process in pairs if instance == number)
        instances[number] = _memory(one, place, name, held or None, number)
    shown = tuple(process for _, process in pairs)
    return _memory(gpu, place, name, None if listed is None else shown, None, instances)


def _memory(
    element: ET.Element,
    place: int,
    name: str,
    processes: tuple[ProcessMemory, ...] | None,
    instance: int | None,
    instances: dict[int, SmiGpu] | None = None,
) -> SmiGpu:
    memory = element.find("fb_memory_usage")
    memory = element.find("shared_fb_memory_usage") if memory is None else memory
    texts = {} if memory is None else {one.tag: (one.text or "").strip() for one in memory}
    used = size_bytes(texts.get("used"))
    return SmiGpu(
        index=place,
        name=name,
        uuid=element.findtext("uuid"),
        total_bytes=size_bytes(texts.get("total")),
        used_bytes=used,
        free_bytes=size_bytes(texts.get("free")),
        reserved_bytes=size_bytes(texts.get("reserved")),
        processes=processes,
        instance=instance,
        instances=tuple((instances or {}).values()),
        untold=None if used is not None else (texts.get("used") or "")[:40] or None,
    )


def _processes(listed: ET.Element) -> Iterator[tuple[int | None, ProcessMemory]]:
    """Yield each process with the number of the GPU instance it is on."""
    for one in listed.findall("process_info")[:MOST_PROCESSES]:
        pid = whole_number(one.findtext("pid"), 10)
        if pid is not None:
            instance = whole_number(one.findtext("gpu_instance_id"), 3)
            yield (
                instance,
                ProcessMemory(
                    pid=pid,
                    name=(one.findtext("process_name") or "")[:200],
                    used_bytes=size_bytes(one.findtext("used_memory")),
                    kind=(one.findtext("type") or "C")[:8],
                ),
            )
