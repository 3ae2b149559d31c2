"""This machine's GPUs as NVML, the driver's own library, reports them.

The only package that imports `pynvml`.
"""

from vramplan.probe.nvml.card import NvmlProbe
from vramplan.probe.nvml.inventory import Gpu, Inventory, read_inventory

__all__ = ["Gpu", "Inventory", "NvmlProbe", "read_inventory"]
