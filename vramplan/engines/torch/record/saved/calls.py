"""Where a pipeline's components begin and end to work, found by hooks and not by their class.

A call of a component becomes a routine of its own, because that is when offload moves its weights.
The same call again is the same routine. A call that frees what its caller had (a table kept from an
earlier call) is no routine: it stays where it ran.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch

from vramplan.engines.torch.record.saved.wrapped import WrappedDevice
from vramplan.engines.torch.record.stream import (
    Alloc,
    Birth,
    Call,
    Free,
    Gemm,
    Phase,
    Stream,
    Workspace,
)

Value = Any

#: methods that are a component's work as much as `forward`, and what their part is called
_METHODS = {
    "encode": "encoder",
    "decode": "decoder",
    "generate": "",
    "get_image_features": "",
    "get_text_features": "",
}
#: calls of one component that differ
_MOST_ROUTINES = 64


class Calls:
    """Turns the calls of components into routines of a recording."""

    def __init__(
        self,
        device: WrappedDevice,
        modules: Mapping[str, torch.nn.Module],
        began: Callable[[str], None],
    ) -> None:
        self.device = device
        self.routines: dict[str, Stream] = {}
        #: components of which a call could not be told apart from its caller
        self.inseparable: set[str] = set()
        self._began = began
        self._forms: dict[Value, str] = {}
        self._depth = 0
        self._open: list[tuple[str, Stream, Stream]] = []
        for name, module in modules.items():
            self._hook(name, module)

    def _hook(self, name: str, module: torch.nn.Module) -> None:
        for method, part in _METHODS.items():
            inner = getattr(module, method, None)
            if callable(inner):
                label = f"{name}.{part}" if part else name
                module.__dict__[method] = self._around(label, inner)
        for inside in module.modules():
            inside.register_forward_pre_hook(functools.partial(self._enter, name))
            inside.register_forward_hook(self._leave, always_call=True)

    def _around(self, label: str, inner: Callable[..., Value]) -> Callable[..., Value]:
        @functools.wraps(inner)
        def call(*args: Value, **kwargs: Value) -> Value:
            self._enter(label)
            try:
                return inner(*args, **kwargs)
            finally:
                self._leave()

        return call

    def _enter(self, label: str, *_: Value) -> None:
        self._depth += 1
        if self._depth > 1:
            return
        self._began(label)
        stream = Stream(label, {})
        self._open.append((label, self.device.stream, stream))
        self.device.stream = stream

    def _leave(self, *_: Value) -> None:
        self._depth -= 1
        if self._depth or not self._open:
            return
        label, outer, inner = self._open.pop()
        self.device.stream = outer
        if any(isinstance(one, Free) and one.birth.stream is not inner for one in inner.events):
            self.inseparable.add(label.partition(".")[0])
            self._stay(label, outer, inner)
            return
        freed = {id(one.birth) for one in inner.events if isinstance(one, Free)}
        born = [one.birth for one in inner.events if isinstance(one, Alloc)]
        left = [birth for birth in born if id(birth) not in freed]
        form = label, _form(inner, left)
        name = self._forms.get(form)
        if name is None:
            known = sum(1 for other in self._forms.values() if _is_of(other, label))
            if known >= _MOST_ROUTINES:
                self._stay(label, outer, inner)
                return
            # "unet", "unet.2": what is before the point is whose weights have to be there
            name = self._forms[form] = label if not known else f"{label}.{known + 1}"
            self.routines[name] = _apart(name, inner)
        for birth in left:
            birth.stream, birth.slot = outer, outer.new_birth().slot
        outer.events.append(Call(name, {}, left))

    def _stay(self, label: str, outer: Stream, inner: Stream) -> None:
        """Put a call's events where its caller's are."""
        phase = next((e.name for e in reversed(outer.events) if isinstance(e, Phase)), "denoise")
        outer.events.append(Phase(phase, label))
        for event in inner.events:
            if isinstance(event, Alloc):
                event.birth.stream, event.birth.slot = outer, outer.new_birth().slot
            outer.events.append(event)
        outer.events.append(Phase(phase))


def _is_of(routine: str, label: str) -> bool:
    return routine == label or routine.removeprefix(f"{label}.").isdigit()


def _apart(name: str, inner: Stream) -> Stream:
    """Return a call's events as a stream of its own: what it leaves will be its caller's."""
    twin = Stream(name, {})
    births: dict[int, Birth] = {}
    for event in inner.events:
        if isinstance(event, Alloc):
            births[id(event.birth)] = twin.new_birth()
            twin.events.append(Alloc(births[id(event.birth)], event.size_bytes, event.operator))
        elif isinstance(event, Free):
            twin.events.append(Free(births[id(event.birth)]))
        else:
            twin.events.append(event)
    return twin


def _form(inner: Stream, left: list[Birth]) -> Value:
    """Return what makes two calls the same: every event, every byte, and what is left."""
    slots = {
        id(event.birth): number
        for number, event in enumerate(e for e in inner.events if isinstance(e, Alloc))
    }
    rows: list[Value] = []
    frees: list[int] = []
    for event in inner.events:
        if isinstance(event, Free):
            frees.append(slots[id(event.birth)])
            continue
        if frees:  # the order of a run of frees does not matter to an allocator
            rows.append(tuple(sorted(frees)))
            frees = []
        if isinstance(event, Alloc):
            rows.append(event.size_bytes)
        elif isinstance(event, Workspace):
            rows.append((event.kind, event.operands))
        elif isinstance(event, Gemm):
            rows.append(("gemm", event.is_backward))
    return tuple(rows), tuple(sorted(frees)), tuple(slots[id(birth)] for birth in left)
