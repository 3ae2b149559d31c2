"""What can be seen of a card now, or in what somebody pasted: the figure to be explained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vramplan.catalog.cards import capability_named
from vramplan.errors import MissingError, UsageError
from vramplan.measurement.reading import DeviceMemory, ProcessMemory
from vramplan.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vramplan.compare.waterfall import Observed
    from vramplan.model import Card
    from vramplan.probe.smi import SmiGpu


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A card as it was seen, and what a reader must know of it; the capability may be unknown."""

    observed: Observed
    compute_capability: str | None
    sentences: tuple[str, ...]


def observe_process(pid: int, selector: str | None) -> Seen:
    """Return the card on which process `pid` has memory.

    Raises MissingError where there is no GPU, UsageError where the process is on none of them.
    """
    from vramplan.probe.choice import choose_gpu
    from vramplan.probe.nvml import NvmlProbe, read_inventory
    from vramplan.probe.processes import own_process

    inventory = read_inventory()
    gpus = inventory.gpus if selector is None else (choose_gpu(inventory, selector),)
    is_told = False
    for gpu in gpus:
        with NvmlProbe(gpu.uuid) as probe:
            memory = probe.read().device
        own = own_process(memory, pid) if memory is not None else None
        is_told = is_told or (memory is not None and memory.processes is not None)
        if memory is not None and own is not None:
            said = (f"process {pid} ({own.name}) on {gpu.name}, driver {inventory.driver_version}",)
            observed = _observed(memory, own, "NVML", memory.used_bytes)
            return Seen(
                observed=observed, compute_capability=gpu.compute_capability, sentences=said
            )
    if not is_told:
        hint = "nvidia-smi | vramplan compare TARGET --smi - explains the card as a whole"
        message = "the driver does not tell which processes use a GPU (WSL, some containers)"
        raise MissingError(message, hint=hint)
    hint = "vramplan watch --count 1 shows who holds memory"
    raise UsageError(f"process {pid} has no memory on any GPU", hint=hint)


def observe_text(text: str, selector: str | None, cards: Iterable[Card] = ()) -> Seen:
    """Return what a pasted report of nvidia-smi shows; `cards` tell a GPU's architecture by name.

    The largest compute process is taken for the pipeline's, if processes are listed; of several
    GPUs the one it is on is looked at, unless one is named. Raises
    MeasurementError for text that nvidia-smi did not print, UsageError for a GPU it does not list.
    """
    from vramplan.probe.smi import read_report

    report = read_report(text)
    shown = _choose(report.gpus, selector)
    memory = shown.memory
    own = _largest(memory)
    driver = f", driver {report.driver}" if report.driver else ""
    said = [f"{shown.name}{driver}, as nvidia-smi printed it"]
    if selector is None and len(report.gpus) > 1:
        listed = ", ".join(str(one.index) for one in report.gpus)
        said.append(f"GPU {shown.index} of {listed}; --gpu takes another")
    if own is not None and own.used_bytes is not None:
        held = format_size(own.used_bytes)
        said.append(f"taken for the pipeline: {own.name} ({own.pid}), {held}")
    elif memory.processes is None:
        said.append("no process is listed: all that is used is taken for the pipeline's")
    elif all(one.used_bytes is None for one in memory.processes):
        said.append(
            "what single processes hold is not told (Windows, WSL): all that is used is taken for "
            "the pipeline's"
        )
    return Seen(
        observed=_observed(memory, own, "nvidia-smi", memory.used_bytes),
        compute_capability=capability_named(shown.name, cards),
        sentences=tuple(said),
    )


def _choose(gpus: Sequence[SmiGpu], selector: str | None) -> SmiGpu:
    """Return the GPU that is named, by index or UUID, else the one with the largest process.

    Raises UsageError for one that is not listed.
    """
    if selector is None:
        return max(gpus, key=lambda one: _size(_largest(one.memory)))
    for one in gpus:
        if selector == str(one.index) or (one.uuid is not None and selector == one.uuid):
            return one
    hint = "it lists " + ", ".join(str(one.index) for one in gpus)
    raise UsageError(f"--gpu {selector}: not in what nvidia-smi printed", hint=hint)


def _size(process: ProcessMemory | None) -> int:
    return (process.used_bytes or 0) if process is not None else 0


def _largest(memory: DeviceMemory) -> ProcessMemory | None:
    computing = [one for one in memory.processes or () if "C" in one.kind]
    return max(computing, key=lambda one: one.used_bytes or 0, default=None)


def _observed(
    memory: DeviceMemory, own: ProcessMemory | None, shown_by: str, shown: int
) -> Observed:
    from vramplan.compare.waterfall import Observed

    sizes = [one.used_bytes for one in memory.processes or () if one != own]
    known = [size for size in sizes if size is not None]
    return Observed(
        shown_bytes=shown,
        shown_by=shown_by,
        system_reserved_bytes=memory.reserved_bytes,
        others_bytes=sum(known) if len(known) == len(sizes) else None,
        process_bytes=own.used_bytes if own is not None else None,
    )
