"""What ``nvidia-smi -q`` prints, as the tree that ``nvidia-smi -q -x`` prints of the same facts.

A heading has no value, its lines are indented below it; a GPU begins at the left with its PCI bus.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

#: how the log begins
MARK = "NVSMI LOG"

#: GPU 00000000:01:00.0
_GPU = re.compile(r"^GPU [0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:")
#: Product Name                          : NVIDIA GeForce RTX 3060
_LINE = re.compile(r"^([A-Za-z][^:]{0,60}?)\s*:\s(.{0,300})$")

_FACTS = {"Product Name": "product_name", "GPU UUID": "uuid"}
_MEMORY = "FB Memory Usage"
_SIZES = {"Total": "total", "Reserved": "reserved", "Used": "used", "Free": "free"}
_PROCESSES = "Processes"
_PROCESS = {"Type": "type", "Name": "process_name", "Used GPU Memory": "used_memory"}


def read_query(text: str) -> ET.Element:
    """Return the log's tree: as much of it as is about memory and who holds it."""
    root = ET.Element("nvidia_smi_log")
    reader = _Reader(root)
    for line in text.splitlines():
        reader.take(line.strip())
    return root


class _Reader:
    """Where in the log a line stands."""

    def __init__(self, root: ET.Element) -> None:
        self._root = root
        self._gpu: ET.Element | None = None
        self._heading = ""
        self._process: ET.Element | None = None

    def take(self, line: str) -> None:
        """Take one line down."""
        found = _LINE.match(line)
        if _GPU.match(line):
            self._gpu, self._heading, self._process = ET.SubElement(self._root, "gpu"), "", None
        elif found:
            self._value(found[1], found[2].strip())
        elif line:
            self._heading = line

    def _value(self, key: str, value: str) -> None:
        if self._gpu is None:
            if key == "Driver Version":
                ET.SubElement(self._root, "driver_version").text = value
        elif key in _FACTS:
            ET.SubElement(self._gpu, _FACTS[key]).text = value
        elif self._heading == _MEMORY and key in _SIZES:
            ET.SubElement(_below(self._gpu, "fb_memory_usage"), _SIZES[key]).text = value
        elif key == "Process ID":
            self._process = ET.SubElement(_below(self._gpu, "processes"), "process_info")
            ET.SubElement(self._process, "pid").text = value
        elif self._process is not None and self._heading == _PROCESSES and key in _PROCESS:
            ET.SubElement(self._process, _PROCESS[key]).text = value


def _below(parent: ET.Element, tag: str) -> ET.Element:
    found = parent.find(tag)
    return ET.SubElement(parent, tag) if found is None else found
