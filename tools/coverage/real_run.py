"""The same run with real data, to hold a recording against: every size, in its order."""

from __future__ import annotations

import functools
import gc
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from vramplan.engines.torch.record.layouts import META, laid_out
from vramplan.engines.torch.record.saved.recording_child import record_modules
from vramplan.engines.torch.record.saved.request import Request
from vramplan.engines.torch.record.saved.wrapped import (
    OnDevice,
    WrappedDevice,
    content_of,
    mapped,
)
from vramplan.engines.torch.record.stream import Alloc, Birth, Event, Stream

Value = Any

#: no tensor has so many elements
_ALL = 1 << 40
#: the stream of what a run itself does not do
_UNHEARD = "unheard"
#: where an operator has whether its attention is causal
_HALF = (torch.bfloat16, torch.float16)
_CAUSAL = {"flash": 4, "efficient": 6}
#: products, which take a CPU many times as long in half precision
_CONVOLUTION = "aten.convolution."
_BAG = "aten._embedding_bag"
_PRODUCTS = (_CONVOLUTION, "aten.mm.", "aten.addmm.", "aten.bmm.", "aten.baddbmm.")
#: what a run with real data may take, in CPU seconds
_SECONDS = 30


class TookTooLongError(Exception):
    """A run with real data is too large for a CPU."""


@dataclass(slots=True)
class Heard:
    """What a run allocated, in its order, and the most that it held at once."""

    sizes: list[int] = field(default_factory=list)
    operators: list[str] = field(default_factory=list)
    held: int = 0
    peak: int = 0


class HeardDevice(WrappedDevice):
    """The recorder's device, which also tells what was allocated in whatever routine."""

    def __init__(self, weights: set[int], **small: int) -> None:
        """Take the identities of the weights' storages, and up to what size content is real."""
        super().__init__(Stream("main", {}), weights, **small)
        self.heard = Heard()
        self._sizes: dict[Birth, int] = {}

    def begin_run(self, dims: dict[str, int]) -> Stream:
        """Hear from here on."""
        self.heard = Heard()
        self._sizes.clear()
        return super().begin_run(dims)

    def write(self, event: Event) -> None:
        """Take an event down."""
        if isinstance(event, Alloc) and self.stream.routine != _UNHEARD:
            heard, size = self.heard, event.size_bytes
            self._sizes[event.birth] = size
            heard.sizes.append(size)
            heard.operators.append(event.operator)
            heard.held += size
            heard.peak = max(heard.peak, heard.held)
        super().write(event)

    def _die(self, key: int, birth: Birth) -> None:
        if self.births.get(key) is birth:
            self.heard.held -= self._sizes.pop(birth, 0)
        super()._die(key, birth)


class RealDevice(HeardDevice):
    """The recorder's device with all content real, attention computed: what a GPU would hold."""

    def __init__(self, weights: set[int]) -> None:
        """Take the identities of the weights' storages."""
        super().__init__(weights, small=_ALL, small_whole=_ALL)
        self._until = time.process_time() + _SECONDS

    def attended(
        self, name: str, args: tuple[Value, ...], kwargs: Mapping[str, Value], shapes: Value
    ) -> Value:
        """Compute an attention, whatever its kernel."""
        out = super().attended(name, args, kwargs, shapes)
        query, key, value = (one.content.float() for one in args[:3])
        groups = query.shape[1] // key.shape[1]
        key, value = (one.repeat_interleave(groups, 1) for one in (key, value))
        bias = args[3] if "efficient" in name or "cudnn" in name else None
        place = next((at for kind, at in _CAUSAL.items() if kind in name), 99)
        is_causal = kwargs.get("is_causal", args[place] if len(args) > place else False)
        with torch._C.DisableTorchFunction():  # noqa: SLF001  # nobody is told of a CPU's kernel
            attended = torch.nn.functional.scaled_dot_product_attention(
                query,
                key,
                value,
                attn_mask=None if bias is None else bias.content.float(),
                is_causal=is_causal,
                scale=kwargs.get("scale"),
            )
        out[0].copy_(attended)
        return out

    def _run(
        self,
        func: Value,
        name: str,
        args: tuple[Value, ...],
        kwargs: dict[str, Value],
        here: list[Value],
    ) -> Value:
        """Compute what the recorder follows, in the types and the layouts that a GPU gives it.

        A layer norm in half precision keeps its numbers in fp32 there, and in half precision on a
        CPU: ATen/native/cuda/layer_norm_kernel.cu. cuDNN's convolutions keep their operands'
        layout by channels, and a CPU's without oneDNN do not. A bag of embeddings notes for each
        index which bag it is of, and a CPU does so for each bag: cuda/EmbeddingBag.cu.
        """
        if time.process_time() > self._until:
            raise TookTooLongError(f"a run with real data takes more than {_SECONDS} CPU seconds")
        if name.startswith("aten.native_layer_norm.") and args[0].dtype in _HALF:
            out, *numbers = func(*mapped(content_of, args), **kwargs)
            return self._wrap((out, *(one.float() for one in numbers)), name, {})
        if name.startswith(_PRODUCTS) and here[0].dtype in _HALF and not kwargs:
            out = func(*mapped(_in_full, mapped(content_of, args))).to(here[0].dtype)
            return self._wrap(_as_laid_out(func, out, args), name, {})
        if name.startswith(_BAG):
            made, shapes = func(*mapped(content_of, args)), func(*mapped(_hollow, args))
            return self._wrap(tuple(map(_as_large, made, shapes)), name, {})
        if name.startswith(_CONVOLUTION):
            return self._wrap(_as_laid_out(func, func(*mapped(content_of, args)), args), name, {})
        try:
            return super()._run(func, name, args, kwargs, here)
        except (NotImplementedError, RuntimeError) as problem:
            half = next((one.dtype for one in here if one.dtype in _HALF), None)
            if half is None or "not implemented for" not in str(problem):
                raise
            out = func(*mapped(_in_full, mapped(content_of, args)), **kwargs)
            return self._wrap(mapped(lambda one: _as_half(one, half), out), name, {})


def _hollow(value: Value) -> Value:
    return value.content.to(META) if isinstance(value, OnDevice) else value


def _as_large(made: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
    """Return a result, or where a GPU's has another shape one of that."""
    return made if made.shape == shape.shape else torch.zeros(shape.shape, dtype=shape.dtype)


def _in_full(value: Value) -> Value:
    is_half = isinstance(value, torch.Tensor) and value.dtype in _HALF
    return value.float() if is_half else value


def _as_half(value: Value, dtype: torch.dtype) -> Value:
    is_full = isinstance(value, torch.Tensor) and value.dtype == torch.float32
    return value.to(dtype) if is_full else value


def _as_laid_out(func: Value, out: torch.Tensor, args: tuple[Value, ...]) -> torch.Tensor:
    shape = laid_out(func, out, args)
    return out if shape.stride() == out.stride() else shape.copy_(out)


def run_heard(
    request: Request,
    modules: Mapping[str, torch.nn.Module],
    kind: type[HeardDevice],
    new_tokens: Sequence[int] = (),
) -> Heard:
    """Run modules on a device of a kind, and return what was allocated."""
    made: list[HeardDevice] = []
    _forget_what_was_made()

    def make(weights: set[int]) -> WrappedDevice:
        made.append(kind(weights))
        return made[-1]

    record_modules(request, modules, lambda _: None, make, new_tokens=new_tokens)
    return made[0].heard


def _forget_what_was_made() -> None:
    """Empty the libraries' caches of functions: tensors of another device may be in them."""
    gc.unfreeze()
    for one in gc.get_objects():
        if type(one) is functools._lru_cache_wrapper:  # noqa: SLF001  # a class without a name
            library = (getattr(one, "__module__", None) or "").partition(".")[0]
            if library in ("transformers", "diffusers"):
                one.cache_clear()


def run_really(
    request: Request, modules: Mapping[str, torch.nn.Module], new_tokens: Sequence[int] = ()
) -> Heard:
    """Run modules with real data, and return what was allocated."""
    with laid_out_plainly():
        return run_heard(request, modules, RealDevice, new_tokens)


@contextmanager
def laid_out_plainly() -> Iterator[None]:
    """Leave oneDNN away, which lays results out as no GPU does."""
    torch.backends.mkldnn.set_flags(_enabled=False)
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(_enabled=True)


def compare(recorded: Heard, real: Heard) -> str:
    """Return how a recording is like the real run: ``equal`` | ``peak equal: …`` | ``differs: …``.

    *Equal* is the list of sizes, in its order, and with it the peak.
    """
    if recorded.sizes == real.sizes and recorded.peak == real.peak:
        return "equal"
    peak = "peak equal" if recorded.peak == real.peak else "differs"
    if peak == "differs":
        peak += f" by {(recorded.peak - real.peak) / real.peak:+.2%} at its peak"
    pairs = zip(recorded.sizes, real.sizes, strict=False)
    place = next((n for n, (one, other) in enumerate(pairs) if one != other), None)
    if place is None:
        place = min(len(recorded.sizes), len(real.sizes))
    return f"{peak}: {_at(recorded, place)}, really {_at(real, place)} (of {len(real.sizes)})"


def _at(heard: Heard, place: int) -> str:
    if place >= len(heard.sizes):
        return f"nothing as number {place}"
    return f"{heard.operators[place].removeprefix('aten.')} {heard.sizes[place]:,} B at {place}"
