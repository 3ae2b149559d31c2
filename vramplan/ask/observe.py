"""What can be seen of a card now, or in what somebody pasted: the figure to be explained."""

from __future__ import annotations

from vramplan.catalog.cards import assumed_card, capability_named
from vramplan.catalog.multiprocessors import find_printed
from vramplan.errors import MissingError, UsageError
from vramplan.measurement.reading import DeviceMemory, ProcessMemory
from vramplan.quick_dataclass import dataclass, replace
from vramplan.quick_typing import TYPE_CHECKING
from vramplan.units import MIB

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vramplan.compare.waterfall import Observed
    from vramplan.model import Card


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A card as it was seen, and what a reader must know of it; the capability may be unknown."""

    observed: Observed
    compute_capability: str | None
    sentences: tuple[str, ...]
    card: Card | None = None


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
            card = replace(
                assumed_card(gpu.compute_capability),
                total_bytes=gpu.total_bytes,
                multiprocessors=gpu.multiprocessors,
            )
            return Seen(
                observed=observed,
                compute_capability=gpu.compute_capability,
                sentences=said,
                card=card,
            )
    if not is_told:
        hint = "nvidia-smi | vramplan compare TARGET --smi - explains the card as a whole"
        message = "the driver does not tell which processes use a GPU (WSL, some containers)"
        raise MissingError(message, hint=hint)
    hint = "vramplan watch --count 1 shows who holds memory"
    raise UsageError(f"process {pid} has no memory on any GPU", hint=hint)


def observe_text(text: str | bytes, selector: str | None, cards: Iterable[Card] = ()) -> Seen:
    """Return what a pasted report of nvidia-smi or an out-of-memory message of torch's shows.

    `cards` tell a GPU's architecture by its name. The largest compute process is taken for the
    pipeline's, if processes are listed; of several GPUs the one it is on is looked at, unless one
    is named. Raises MeasurementError for other text, UsageError for a GPU it does not list.
    """
    from vramplan.compare.pasted import read_pasted

    known = tuple(cards)
    pasted = read_pasted(text, selector, frozenset(card.total_bytes // MIB for card in known))
    name = pasted.gpu_name
    return Seen(
        observed=pasted.observed,
        compute_capability=None if name is None else capability_named(name, known),
        sentences=pasted.sentences,
        # sizes of one name differ by a few multiprocessors: without a size the smallest is taken
        card=None if name is None else find_printed(name, 0, known),
    )


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
