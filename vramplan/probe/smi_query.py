"""What ``nvidia-smi -q`` prints, as the tree that ``nvidia-smi -q -x`` prints of the same facts.

A heading has no value, its lines are indented below it; a GPU begins at the left with its PCI bus.
A MIG device stands inside its GPU with a memory of its own.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from vramplan.probe.smi_report import SmiReport, last_of
from vramplan.probe.smi_tree import read_tree

#: how the log begins
MARK = "NVSMI LOG"

#: GPU 00000000:01:00.0
_GPU = re.compile(r"^GPU [0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:")
#: Product Name                          : NVIDIA GeForce RTX 3060
_LINE = re.compile(r"^([A-Za-z][^:]{0,60}?)\s*:\s(.{0,300})$")

_FACTS = {"Product Name": "product_name", "GPU UUID": "uuid"}
_MEMORY = ("FB Memory Usage", "Shared FB Memory Usage", "Memory Usage")
_SIZES = {"Total": "total", "Reserved": "reserved", "Used": "used", "Free": "free"}
_PROCESSES = ("Processes", "Compute Processes")
_PROCESS = {"Type": "type", "Name": "process_name", "Used GPU Memory": "used_memory"}
_INSTANCE = "GPU instance ID"
_MIG = "MIG Device"


def read_log(text: str) -> SmiReport:
    """Return what the last log in the text says that says anything."""
    parts = text.split(MARK)[1:] or [text]
    number, read = 0, SmiReport(gpus=())
    for part in parts[-1000:]:
        one = read_tree(read_query(part))
        if one.tells_something:
            number, read = number + 1, one
        elif not number:
            read = one
    return SmiReport(gpus=read.gpus, driver=read.driver, remarks=tuple(last_of(number, None)))


def is_log(text: str) -> bool:
    """Return whether a log is in the text, or a part of one that begins at a GPU."""
    return MARK in text or (
        any(_GPU.match(line.strip()) for line in text.splitlines())
        and any(name in text for name in (*_MEMORY, *_FACTS))
    )


def read_query(text: str) -> ET.Element:
    """Return the log's tree: as much of it as is about memory and who holds it."""
    root = ET.Element("nvidia_smi_log")
    reader = _Reader(root)
    for line in text.splitlines():
        reader.take(line.strip(), len(line) - len(line.lstrip()))
    return root


class _Reader:
    """Where in the log a line stands."""

    def __init__(self, root: ET.Element) -> None:
        self._root = root
        self._gpu: ET.Element | None = None
        self._device: ET.Element | None = None  # a MIG device of it
        self._device_indent = 0
        self._heading = ""
        self._process: ET.Element | None = None
        self._instance = ""

    def take(self, line: str, indent: int) -> None:
        """Take one line down, which stood that far from the left."""
        found = _LINE.match(line)
        if _GPU.match(line):
            self._gpu, self._heading = ET.SubElement(self._root, "gpu"), ""
            self._process = self._device = None
        elif found:
            self._value(found[1], found[2].strip(), indent)
        elif line:
            self._head(line.rstrip(":").rstrip(), indent)

    def _head(self, line: str, indent: int) -> None:
        self._heading = line
        if self._gpu is None:
            return
        if line == _MIG:
            self._device = ET.SubElement(_below(self._gpu, "mig_devices"), "mig_device")
            self._device_indent = indent
        elif self._device is not None:
            has_memory = self._device.find("fb_memory_usage") is not None
            # a pasted log may have lost its indentation: a second memory is then the GPU's
            if (0 < indent <= self._device_indent) or (line in _MEMORY and has_memory):
                self._device = None

    def _value(self, key: str, value: str, indent: int) -> None:
        if self._gpu is None:
            if key in ("Driver Version", "KMD Version") and (
                self._root.find("driver_version") is None or key == "KMD Version"
            ):
                _below(self._root, "driver_version").text = value
        elif key in _FACTS and (key != "GPU UUID" or value.startswith("GPU-")):
            self._device = None
            _below(self._gpu, _FACTS[key]).text = value
        elif self._device is not None and key == "GPU Instance ID":
            _below(self._device, "gpu_instance_id").text = value
        elif self._device is not None and 0 < indent <= self._device_indent:
            self._device = None
        elif self._heading in _MEMORY and key in _SIZES:
            holder = self._gpu if self._device is None else self._device
            _below(_below(holder, "fb_memory_usage"), _SIZES[key]).text = value
        elif key == _INSTANCE:
            self._instance = value
        elif key == "Process ID":
            self._process = ET.SubElement(_below(self._gpu, "processes"), "process_info")
            ET.SubElement(self._process, "pid").text = value
            ET.SubElement(self._process, "gpu_instance_id").text = self._instance
        elif self._process is not None and self._heading in _PROCESSES and key in _PROCESS:
            _below(self._process, _PROCESS[key]).text = value


def _below(parent: ET.Element, tag: str) -> ET.Element:
    found = parent.find(tag)
    return ET.SubElement(parent, tag) if found is None else found
