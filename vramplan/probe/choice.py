"""Which GPU is meant: by index, by UUID, or the first that CUDA would take."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from vramplan.errors import MissingError, UsageError
from vramplan.probe.nvml import Gpu, Inventory

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_ORDER = "CUDA_DEVICE_ORDER"


def choose_gpu(
    inventory: Inventory,
    selector: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Gpu:
    """Return the GPU that `selector` names, else the first that CUDA_VISIBLE_DEVICES leaves.

    An index counts as nvidia-smi does, which is by PCI bus; a UUID may be shortened as CUDA allows.
    Raises UsageError for one that is not there, MissingError where the environment hides all.
    """
    environ = os.environ if environment is None else environment
    if selector is not None:
        found = _find(inventory.gpus, selector.strip())
        if found is None:
            known = ", ".join(f"{gpu.index} ({gpu.name})" for gpu in inventory.gpus)
            raise UsageError(f"no GPU {selector!r}", hint=f"there are {known}")
        return found
    visible = environ.get(_VISIBLE)
    if visible is None:
        return inventory.gpus[0]
    first = visible.split(",")[0].strip()
    found = _find(inventory.gpus, first)
    if found is None:
        message = f"{_VISIBLE}={visible} hides every GPU from CUDA"
        raise MissingError(message, hint=f"unset {_VISIBLE}, or name a GPU with --gpu")
    return found


def is_order_certain(inventory: Inventory, environment: Mapping[str, str] | None = None) -> bool:
    """Return whether an index in CUDA_VISIBLE_DEVICES means the GPU that NVML gives that index.

    CUDA counts the fastest first unless it is told to go by PCI bus, as NVML always does. Source:
    CUDA C++ Programming Guide, CUDA Environment Variables.
    """
    environ = os.environ if environment is None else environment
    visible = environ.get(_VISIBLE, "").strip()
    is_index = visible[:1].isascii() and visible[:1].isdigit()
    if len({gpu.name for gpu in inventory.gpus}) < 2 or not is_index:
        return True
    return environ.get(_ORDER) == "PCI_BUS_ID"


def _find(gpus: Sequence[Gpu], text: str) -> Gpu | None:
    if text.isascii() and text.isdigit() and len(text) < 10:
        return next((gpu for gpu in gpus if gpu.index == int(text)), None)
    if len(text) < 5:  # GPU-, MIG-: names none
        return None
    matching = [gpu for gpu in gpus if gpu.uuid.lower().startswith(text.lower())]
    return matching[0] if len(matching) == 1 else None


def environment_for(gpu: Gpu) -> dict[str, str]:
    """Return what makes a process see this GPU alone, as its device 0."""
    return {_VISIBLE: gpu.uuid, _ORDER: "PCI_BUS_ID"}
