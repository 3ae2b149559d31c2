"""Calls that are recorded once per shape and remembered.

A module's allocations depend only on the shapes of what it is given. So the UNet of a fifty-step
run is executed once per shape; the other forty-nine calls hand back empty tensors of the same
shapes, and the tape says *call*. Only stateless modules may be remembered (a KV cache is not).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from vramplan.engines.torch.record.device import Device
from vramplan.engines.torch.record.stream import Birth, Call, Leaf, Stream
from vramplan.errors import RecordingError

Value = Any
Dims = dict[str, int]


@dataclass(frozen=True, slots=True)
class _Output:
    """A tensor a routine returned: which of its storages, seen how."""

    storage: int
    elements: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


@dataclass(slots=True)
class _Memory:
    stream: Stream
    leaves: list[Value]
    spec: Value
    storages: int


@dataclass(slots=True)
class Routines:
    """The remembered calls of one recording session, and the streams they were recorded in."""

    device: Device
    memory: dict[Value, _Memory] = field(default_factory=dict)
    remember: bool = True
    facts: dict[str, str] = field(default_factory=dict)  # of the run under way
    relevant: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # routine -> facts it may depend on

    def streams(self) -> dict[str, list[Stream]]:
        """Return the recorded streams by routine, one for each distinct shape."""
        found: dict[str, list[Stream]] = {}
        for memory in self.memory.values():
            found.setdefault(memory.stream.routine, []).append(memory.stream)
        return found

    def wrap(
        self,
        name: str,
        function: Callable[..., Value],
        dims_of: Callable[..., Dims],
        before: Callable[[], None] | None = None,
    ) -> Callable[..., Value]:
        """Return `function` as a routine; `dims_of` reads its dimensions off the arguments."""

        @functools.wraps(function)
        def routine(*args: Value, **kwargs: Value) -> Value:
            if before is not None:
                before()
            if not self.remember:
                return function(*args, **kwargs)
            dims = dims_of(*args, **kwargs)
            facts = tuple(self.facts.get(fact) for fact in self.relevant.get(name, ()))
            key = (name, facts, tuple(sorted(dims.items())), _signature((args, kwargs)))
            if key not in self.memory:
                return self._first_call(key, name, dims, lambda: function(*args, **kwargs))
            return self._recall(self.memory[key], dims)

        return routine

    def _first_call(self, key: Value, name: str, dims: Dims, run: Callable[[], Value]) -> Value:
        device, outer = self.device, self.device.stream
        stream = Stream(name, dims)
        with device.into(stream):
            result = run()
            device.end_loops()
        leaves, spec = tree_flatten(result)
        tensors = [x for x in leaves if isinstance(x, torch.Tensor)]
        owned: dict[int, tuple[torch.Tensor, int]] = {}
        for tensor in tensors:
            birth = device.birth_of(tensor)
            if birth is not None and birth.stream is stream:
                owned[tensor.untyped_storage()._cdata] = (tensor, birth.slot)
        ordered = sorted(owned.items(), key=lambda item: item[1][1])
        self._refuse_leaks(stream, {slot for _, (_, slot) in ordered})
        index = {storage: i for i, (storage, _) in enumerate(ordered)}
        self.memory[key] = _Memory(
            stream, [_describe(x, index) for x in leaves], spec, len(ordered)
        )
        outputs = []
        for _, (tensor, _) in ordered:
            birth = outer.new_birth()
            device.rebind(tensor, birth)
            outputs.append(birth)
        device.write(Call(name, dims, outputs))
        return result

    def _refuse_leaks(self, stream: Stream, outputs: set[int]) -> None:
        leaked = [
            b.slot
            for b in self.device.births.values()
            if b.stream is stream and b.slot not in outputs
        ]
        if leaked:
            raise RecordingError(
                f"{stream.routine}: {len(leaked)} tensors outlive the call without being returned"
            )

    def _recall(self, memory: _Memory, dims: Dims) -> Value:
        device = self.device
        bases: dict[int, torch.Tensor] = {}
        births: dict[int, Birth] = {}
        leaves: list[Value] = []
        with _disable_current_modes():
            for leaf in memory.leaves:
                if not isinstance(leaf, _Output):
                    leaves.append(leaf)
                    continue
                if leaf.storage not in bases:
                    bases[leaf.storage] = torch.empty(
                        leaf.elements, dtype=leaf.dtype, device="meta"
                    )
                leaves.append(bases[leaf.storage].as_strided(leaf.shape, leaf.stride, leaf.offset))
            for number in range(memory.storages):
                births[number] = device.stream.new_birth()
                device.adopt(bases[number], births[number])
        device.write(Call(memory.stream.routine, dims, [births[n] for n in range(memory.storages)]))
        return tree_unflatten(leaves, memory.spec)


def _describe(leaf: Value, index: dict[int, int]) -> Value:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    storage = leaf.untyped_storage()
    if storage._cdata not in index:
        raise RecordingError(
            f"a routine returned a tensor that it did not make: {leaf.dtype} {tuple(leaf.shape)}"
        )
    elements = storage.nbytes() // leaf.element_size()
    return _Output(
        index[storage._cdata],
        elements,
        leaf.dtype,
        tuple(leaf.shape),
        tuple(leaf.stride()),
        int(leaf.storage_offset()),
    )


def _signature(value: Value) -> tuple[Value, ...]:
    parts: list[Value] = []
    for leaf in tree_leaves(value):
        if isinstance(leaf, torch.Tensor):
            parts.append((tuple(leaf.shape), tuple(leaf.stride()), leaf.dtype))
        elif isinstance(leaf, (int, float, str, bool, type(None))):
            parts.append(leaf)
    return tuple(parts)


def module_tensors(module: torch.nn.Module) -> list[list[torch.Tensor]]:
    """Return each module's own tensors in the order `Module.to` moves them, parameters first.

    `Module._apply` goes to the children first; modules without tensors are left out.
    """
    found: list[list[torch.Tensor]] = []
    _gather(module, found, set())
    return found


def _gather(module: torch.nn.Module, found: list[list[torch.Tensor]], seen: set[int]) -> None:
    for child in module.children():
        _gather(child, found, seen)
    own = [t for t in (*module._parameters.values(), *module._buffers.values()) if t is not None]
    fresh = [t for t in own if id(t) not in seen]
    seen.update(map(id, fresh))
    if fresh:
        found.append(fresh)


def watch_leaves(device: Device, component: str, module: torch.nn.Module) -> None:
    """Mark where each module with parameters of its own begins and ends its forward.

    The numbers are those of `module_tensors`. Sequential offload hooks exactly these modules.
    """
    numbers = {id(tensors[0]): number for number, tensors in enumerate(module_tensors(module))}
    for part in module.modules():
        own = [t for t in (*part._parameters.values(), *part._buffers.values()) if t is not None]
        if (
            not own
            or id(own[0]) not in numbers
            or not any(p is not None for p in part._parameters.values())
        ):
            continue
        number = numbers[id(own[0])]

        def enter(_: Value, __: Value, number: int = number) -> None:
            device.write(Leaf(component, number, True))

        def leave(_: Value, __: Value, ___: Value, number: int = number) -> None:
            device.write(Leaf(component, number, False))

        part.register_forward_pre_hook(enter)
        part.register_forward_hook(leave)
