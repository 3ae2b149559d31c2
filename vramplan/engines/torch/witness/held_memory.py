"""What holds a card's memory: modules and optimisers by name, everything else by line of code.

From the allocator's snapshot, whose blocks have the stack they were allocated by, and its trace,
which leads back to the moment of the peak (torch/cuda/memory.py, `_snapshot`).
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from vramplan.engines.torch.witness.code_places import Place, own_place

_ROUND = 512
_MOST_ROWS = 12

#: what holds memory, and at which addresses
Named = tuple[str, set[int]]
#: what stands for a line where there is none: the allocation's stack was not kept, or had no Python
_NOT_KEPT: Place = ("", 0, "not kept")
_NO_PYTHON: Place = ("", 0, "no Python")

#: the frames that allocated a block; None where they were not kept
Frames = Sequence[Mapping[str, Any]] | None
#: address: size, and the frames
Blocks = dict[int, tuple[int, Frames]]


def live_blocks(snapshot: Mapping[str, Any], device: int) -> Blocks:
    """Return the blocks of a device that are allocated in a snapshot."""
    found: Blocks = {}
    for segment in snapshot["segments"]:
        if segment["device"] != device:
            continue
        for block in segment["blocks"]:
            if block["state"] == "active_allocated":
                found[block["address"]] = (block["size"], block.get("frames"))
    return found


def blocks_at_peak(snapshot: Mapping[str, Any], device: int) -> tuple[int, Blocks]:
    """Return the most that was allocated at a time since the trace begins, and the blocks then.

    The trace is walked from its end, where the blocks are known.
    """
    traces = snapshot["device_traces"]
    trace = traces[device] if device < len(traces) else ()
    born: Blocks = {}
    freed: dict[int, tuple[int, Frames]] = {}
    for number, event in enumerate(trace):
        if event["action"] == "alloc":
            born[event["addr"]] = (_rounded(event["size"]), event.get("frames"))
        elif event["action"] == "free_requested":
            freed[number] = born.pop(event["addr"], (_rounded(event["size"]), None))
    blocks = live_blocks(snapshot, device)
    held = sum(size for size, _ in blocks.values())
    most, at = held, len(trace)
    for number in range(len(trace) - 1, -1, -1):
        event = trace[number]
        if event["action"] == "alloc":
            held -= _rounded(event["size"])
        elif number in freed:
            held += freed[number][0]
        if held > most:
            most, at = held, number
    for number in range(len(trace) - 1, at - 1, -1):
        event = trace[number]
        if event["action"] == "alloc":
            blocks.pop(event["addr"], None)
        elif number in freed:
            blocks[event["addr"]] = freed[number]
    return most, blocks


def _rounded(size: int) -> int:
    return -(-size // _ROUND) * _ROUND


def holders(blocks: Blocks, dying: Sequence[Named] = ()) -> dict[str, list[dict[str, Any]]]:
    """Return who holds the blocks: `modules` by name, and the `lines` that allocated the rest.

    `dying` are names and addresses of what is not to be found any more.
    """
    left = dict(blocks)
    modules = []
    for name, addresses in (*dying, *_named_storages()):
        size = sum(left.pop(address)[0] for address in addresses if address in left)
        if size:
            modules.append({"name": name, "bytes": size})
    lines: Counter[Place] = Counter()
    for size, frames in left.values():
        places = ((one["filename"], one["line"], one["name"]) for one in frames or ())
        lines[own_place(places) or (_NOT_KEPT if frames is None else _NO_PYTHON)] += size
    rows = [
        {"file": file or None, "line": line or None, "function": function, "bytes": size}
        for (file, line, function), size in lines.most_common(_MOST_ROWS)
    ]
    modules.sort(key=lambda one: -int(str(one["bytes"])))
    return {"modules": modules[:_MOST_ROWS], "lines": rows}


def name_tensors(name: str, tensors: Sequence[torch.Tensor]) -> list[Named]:
    """Return a module's weights and gradients, with the addresses that hold them."""
    gradients = [one.grad for one in tensors if one.is_leaf and one.grad is not None]
    return [
        (f"weights of {name}", _addresses(tensors)),
        (f"gradients of {name}", _addresses(gradients)),
    ]


def _named_storages() -> Iterator[Named]:
    """Yield weights, gradients and optimisers' states, with the addresses that hold them."""
    modules, optimisers = found_objects()
    below = {id(child) for module in modules for child in module.children()}
    for module in modules:
        if id(module) not in below:
            tensors = [*module.parameters(), *module.buffers()]
            yield from name_tensors(type(module).__name__, tensors)
    for optimiser in optimisers:
        states = (one for state in optimiser.state.values() for one in _values(state))
        yield f"state of {type(optimiser).__name__}", _addresses(states)


def _values(state: object) -> Iterable[object]:
    return state.values() if isinstance(state, dict) else ()


def found_objects() -> tuple[list[torch.nn.Module], list[torch.optim.Optimizer]]:
    """Return the modules and optimisers that are alive.

    By their types: asking an object for its class may run its code.
    """
    kinds: dict[type, int] = {}
    modules, optimisers = [], []
    for one in gc.get_objects():
        kind = type(one)
        which = kinds.get(kind)
        if which is None:
            which = 1 if issubclass(kind, torch.nn.Module) else 0
            which = 2 if issubclass(kind, torch.optim.Optimizer) else which
            kinds[kind] = which
        if which == 1:
            modules.append(one)
        elif which == 2:
            optimisers.append(one)
    return [one for one in modules if "_parameters" in one.__dict__], optimisers


def _addresses(tensors: Iterable[object]) -> set[int]:
    found = set()
    for one in tensors:
        if isinstance(one, torch.Tensor) and one.is_cuda:
            try:
                found.add(one.untyped_storage().data_ptr())
            except (RuntimeError, NotImplementedError):  # a tensor without a storage of its own
                continue
    return found
