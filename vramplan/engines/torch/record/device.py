"""A device that is not there: large tensors on `meta`, small ones real, every storage written down.

The real pipeline code runs unmodified on modules that live on torch's `meta` device, which stands
for the GPU. Tensors of up to `SMALL` elements that the code puts on the device stay real on the
CPU so that control flow (schedules, token ids, masks) goes on; they are recorded all the same,
because on a GPU they would live there. A copy back to the CPU becomes real zeros.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from vramplan.engines.torch.record.attention import as_on_card, without_sums
from vramplan.engines.torch.record.layouts import META, has_filter_copy, is_by_channels, laid_out
from vramplan.engines.torch.record.marks import WrittenMarks
from vramplan.engines.torch.record.norm_results import results_of
from vramplan.engines.torch.record.scratch import (
    CONVOLUTIONS,
    copied_first,
    kept_bytes,
    temporaries,
)
from vramplan.engines.torch.record.stream import (
    Alloc,
    Birth,
    Event,
    Free,
    Gemm,
    Stream,
    Workspace,
)
from vramplan.engines.torch.reduction_workspace import INNER, OUTER
from vramplan.engines.torch.tape.convolution import (
    FILTER_GRADIENT,
    FORWARD,
    INPUT_GRADIENT,
    Convolution,
)

#: tensors up to this many elements keep their values
SMALL = 4096

CPU = torch.device("cpu")

_GEMM = (
    "aten.mm",
    "aten.addmm",
    "aten.bmm",
    "aten.baddbmm",
    "aten.addbmm",
    "aten._addmm_activation",
)
_CONV_BACKWARD = "aten.convolution_backward."
_SUM = ("aten.sum.", "aten.mean.")
_ADD = "aten.add.Tensor"
_ATTENTION = "aten._scaled_dot_product_"

# torch's operator objects and nested arguments have no useful static type
Operator = Any
Value = Any


def is_meta(value: Value) -> bool:
    """True for a tensor on the device that is not there."""
    return isinstance(value, torch.Tensor) and value.device.type == "meta"


class Device(WrittenMarks, TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types here
    """The dispatch mode; `stream` is where events go now.

    Storages in `weights` (by data pointer identity) were there before the run and are not recorded.
    """

    def __init__(self, stream: Stream, weights: set[int]) -> None:
        WrittenMarks.__init__(self, stream)
        TorchDispatchMode.__init__(self)  # type: ignore[no-untyped-call]  # as above
        self.weights = weights
        self.births: dict[int, Birth] = {}
        self._sum: tuple[Alloc, Birth, int] | None = None

    # ------------------------------------------------------------------ events
    def adopt(self, tensor: torch.Tensor, birth: Birth) -> None:
        """Make `birth` the life of this tensor's storage."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        self.births[key] = birth
        weakref.finalize(storage, self._die, key).atexit = False

    def rebind(self, tensor: torch.Tensor, birth: Birth) -> None:
        """Hand a storage that is alive over to `birth`, a slot of another stream."""
        self.births[tensor.untyped_storage()._cdata] = birth

    def _die(self, key: int) -> None:
        birth = self.births.pop(key)
        if self._has_taken(birth):
            return
        birth.alive = False
        self.stream.events.append(Free(birth))

    def _remember_sum(self, alloc: Alloc, key: int, out: torch.Tensor, first: Value) -> None:
        old = self.birth_of(first) if isinstance(first, torch.Tensor) else None
        is_alike = old is not None and first.shape == out.shape and first.dtype == out.dtype
        if old is not None and is_alike and old.stream is self.stream:
            self._sum = alloc, old, key

    def _has_taken(self, birth: Birth) -> bool:
        """Return whether the latest sum of gradients is where the storage that dies was.

        Autograd adds to a gradient that nobody else holds in place, but not where calls are
        dispatched to Python. torch/csrc/autograd/input_buffer.cpp, can_accumulate_inplace.
        """
        if self._sum is None:
            return False
        (alloc, first, key), self._sum = self._sum, None
        events = self.stream.events
        if first is not birth or not events or events[-1] is not alloc or key not in self.births:
            return False
        events.pop()
        self.stream.slots -= 1
        self.births[key] = birth
        return True

    def birth_of(self, tensor: torch.Tensor) -> Birth | None:
        """Return the recorded life of this tensor's storage; None for weights and CPU tensors."""
        return self.births.get(tensor.untyped_storage()._cdata)

    def is_on_device(self, tensor: torch.Tensor) -> bool:
        """True where a GPU would hold this tensor, wherever it is here."""
        key = tensor.untyped_storage()._cdata
        return tensor.device.type == "meta" or key in self.births or key in self.weights

    # ---------------------------------------------------------------- dispatch
    def __torch_dispatch__(
        self,
        func: Operator,
        types: Value,
        args: tuple[Value, ...] = (),
        kwargs: dict[str, Value] | None = None,
    ) -> Value:
        kwargs = dict(kwargs or {})
        func, name = as_on_card(func, str(func))
        loops = self.stream.open_loops
        if loops and loops[-1] in self.until and name.startswith(self.until[loops[-1]]):
            self.end_loop()
        if self.beat is not None and name.startswith(self.beat[1]):
            if self.beats % self.beat[2] == 0:
                self.iterate(self.beat[0])
            self.beats += 1
        tensors = [*_tensors_in(args), *_tensors_in(kwargs.values())]
        if name.startswith("aten._local_scalar_dense") and is_meta(args[0]):
            return 0
        if name.startswith("aten._to_copy"):
            return self._copy(func, args, kwargs)
        if not any(is_meta(x) for x in tensors):
            return self._run(func, name, args, kwargs, tensors)
        with self.holding(copied_first(name, args), name):
            out = self._run(func, name, args, kwargs, tensors)
            for event in scratch_events(self.stream, name, args, out):
                self.write(event)
        return out

    def _run(
        self,
        func: Operator,
        name: str,
        args: tuple[Value, ...],
        kwargs: dict[str, Value],
        tensors: list[torch.Tensor],
    ) -> Value:
        device = kwargs.get("device")
        wants_gpu = device is not None and torch.device(device).type == "meta"
        if any(map(is_meta, tensors)) or name.startswith(_ATTENTION):
            if device is not None and not wants_gpu:  # new_zeros(device=cpu) of a device tensor
                return func(*tree_map(_to_zeros, args), **kwargs)
            written = written_argument(func, args)
            if written is not None and not is_meta(written):
                return written  # a real tensor keeps its values: what was computed on meta has none
            if not all(map(is_meta, tensors)):
                args, kwargs = tree_map(_to_meta, (args, kwargs))
            out = without_sums(name, args, results_of(func, name, args, kwargs))
            if written is None and not kwargs.get("memory_format"):
                out = laid_out(func, out, args)
            if isinstance(out, torch.Tensor):
                return self._born(self._real_if_index(out), name, args)
            return self._born(tree_map(self._real_if_index, out), name)
        on_device = wants_gpu or any(self.is_on_device(x) for x in tensors)
        if wants_gpu:
            if not tensors:
                probe = func(*args, **{**kwargs, "device": META})
                if probe.numel() > SMALL:
                    return self._born(probe, name)
            elif tensors[0].numel() > SMALL:
                return self._born(
                    func(*tree_map(_to_meta, args), **{**kwargs, "device": META}), name
                )
            kwargs["device"] = CPU
        out = func(*args, **kwargs)
        return self._born(out, name, args) if on_device else out

    def _copy(self, func: Operator, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        source: torch.Tensor = args[0]
        device = kwargs.get("device")
        target = torch.device(device).type if device is not None else None
        here = self.is_on_device(source)
        if target == "cpu" and here:
            dtype = kwargs.get("dtype") or source.dtype
            if is_meta(source):
                return torch.zeros(source.shape, dtype=dtype)
            return func(source, **{**kwargs, "device": CPU})
        if is_meta(source):
            return self._born(func(source, **{**kwargs, "device": META}), "aten._to_copy")
        if target == "meta":
            if here and kwargs.get("dtype", source.dtype) in (None, source.dtype):
                return torch.ops.aten.alias(source)  # it is there already: a GPU copies nothing
            if source.numel() > SMALL:
                return self._born(func(source, **{**kwargs, "device": META}), "aten._to_copy")
            return self._born(func(source, **{**kwargs, "device": CPU}), "aten._to_copy")
        out = func(source, **kwargs)
        return self._born(out, "aten._to_copy") if here else out

    def _real_if_index(self, out: Value) -> Value:
        """Small integer results become zeros, so that code which reads them goes on."""
        if (
            is_meta(out)
            and not out.dtype.is_floating_point
            and not out.dtype.is_complex
            and out.numel() <= SMALL
            and self.birth_of(out) is None
            and out._base is None
        ):
            real = torch.zeros(out.shape, dtype=out.dtype)
            if out.untyped_storage()._cdata in self.weights:
                self._stand_in(real)
            return real
        return out

    def _stand_in(self, real: torch.Tensor) -> None:
        """Let `real` stand for a view of a weight, which a GPU allocates nothing for."""
        storage = real.untyped_storage()
        self.weights.add(storage._cdata)
        weakref.finalize(storage, self.weights.discard, storage._cdata).atexit = False

    def _born(self, out: Value, name: str, args: tuple[Value, ...] = ()) -> Value:
        for tensor in _tensors_in((out,)):
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self.births or key in self.weights or storage.nbytes() == 0:
                continue
            birth = self.stream.new_birth()
            self.adopt(tensor, birth)
            alloc = Alloc(birth, kept_bytes(name, args, storage.nbytes()), name)
            self.write(alloc)
            if name.startswith(_ADD) and torch._C._current_graph_task_id() != -1:
                self._remember_sum(alloc, key, tensor, args[0])
        return out


def scratch_events(
    stream: Stream, name: str, args: tuple[Value, ...], out: Value
) -> Iterator[Event]:
    """Yield what a library takes and gives back inside one operator, besides its results."""
    if name.startswith(_GEMM):
        yield Gemm(torch._C._current_graph_task_id() != -1)
    elif name.startswith(_CONV_BACKWARD):
        gradient, source, weight = map(_nbytes, args[:3])
        layer = (args[2], args[4:10], args[1])
        if args[-1][0]:  # the input's gradient, then the weight's
            yield _convolution(INPUT_GRADIENT, (gradient, source, weight), *layer)
        if args[-1][1]:
            yield _convolution(FILTER_GRADIENT, (source, gradient, weight), *layer)
        if args[-1][2]:
            yield from sum_events(args[0], [0, *range(2, args[0].dim())])
    elif name.startswith(_SUM):
        dims = args[1] if len(args) > 1 and isinstance(args[1], (list, tuple)) else ()
        yield from sum_events(args[0], dims)
    elif name.startswith(CONVOLUTIONS):
        operands = _nbytes(args[0]), _nbytes(out), _nbytes(args[1])
        step = _convolution(FORWARD, operands, args[1], args[3:9], args[0])
        if has_filter_copy(args[0], args[1]):
            filter_copy = Alloc(stream.new_birth(), operands[2], name)
            yield from (filter_copy, step, Free(filter_copy.birth))
        else:
            yield step
    for sizes in temporaries(name, args, out):
        inside = [Alloc(stream.new_birth(), size, name) for size in sizes]
        yield from inside
        yield from (Free(alloc.birth) for alloc in inside)


def sum_events(source: torch.Tensor, dims: Iterable[int]) -> Iterator[Event]:
    """Yield what a sum over `dims` takes (`reduction_workspace`); all of them where none is named.

    A sum over both inner and outer dimensions counts as what its innermost one is.
    """
    if not source.dim() or not source.is_floating_point():
        return
    reduced = {dim % source.dim() for dim in dims} or set(range(source.dim()))
    inner = min(
        range(source.dim()), key=lambda dim: (source.shape[dim] == 1, source.stride(dim), dim)
    )
    inputs = math.prod(source.shape[dim] for dim in reduced)
    outputs = source.numel() // inputs
    kind = INNER if inner in reduced else OUTER
    yield Workspace(kind, (outputs, inputs, 1 if inner in reduced else source.shape[inner]))


def _convolution(
    product: str,
    sizes: tuple[int, int, int],
    weight: torch.Tensor,
    given: tuple[Value, ...],
    source: torch.Tensor,
) -> Workspace:
    """Return what cuDNN may ask for, of a layer that is `given` as its operator has it."""
    stride, padding, dilation, is_transposed, _, groups = given
    kernel = tuple(weight.shape[2:])
    sides = [tuple(one) * (len(kernel) // len(one)) for one in (stride, padding, dilation)]
    first, second = weight.shape[0], weight.shape[1] * groups
    layer = Convolution(
        product=product,
        in_channels=first if is_transposed else second,
        out_channels=second if is_transposed else first,
        kernel=kernel,
        stride=sides[0],
        padding=sides[1],
        dilation=sides[2],
        groups=groups,
        is_transposed=is_transposed,
        is_channels_last=is_by_channels(source) or is_by_channels(weight),
    )
    return Workspace(layer.kind, (*sizes, source.shape[0], *source.shape[2:]))


def _tensors_in(values: Iterable[Value]) -> Iterator[torch.Tensor]:
    """Yield the tensors among an operator's arguments or results, nested in lists at most."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors_in(value)


def _nbytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _to_meta(value: Value) -> Value:
    if isinstance(value, torch.Tensor) and not is_meta(value) and value.dim():
        return value.to("meta")
    return value


def _to_zeros(value: Value) -> Value:
    return torch.zeros(value.shape, dtype=value.dtype) if is_meta(value) else value


def written_argument(func: Operator, args: tuple[Value, ...]) -> torch.Tensor | None:
    """Return the argument that an operator writes into; None where it makes its result."""
    for argument, value in zip(func._schema.arguments, args, strict=False):
        alias = argument.alias_info
        if alias is not None and alias.is_write and isinstance(value, torch.Tensor):
            return value
    return None


def weights_of(modules: list[torch.nn.Module]) -> set[int]:
    """Return the storage identities of every parameter and buffer of `modules`."""
    found: set[int] = set()
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            found.add(tensor.untyped_storage()._cdata)
    return found


Work = Callable[[], Value]
