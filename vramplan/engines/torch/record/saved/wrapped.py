"""A device that is not there and calls itself ``cuda:0``: its tensors are wrapped.

Code that asks a tensor where it is branches as it would on a GPU, and nothing that it does with
devices meets ``meta``. The content behind a wrapper is real as long as it is small, so that
schedules, token ids and masks have values; what is large, and all weights, is on `meta`. Storages
are written down as the content's live and die.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vramplan.engines.torch.attention_kernel import KERNELS
from vramplan.engines.torch.record.attention import Attention, as_on_card, without_sums
from vramplan.engines.torch.record.device import (
    CPU,
    SMALL,
    Operator,
    Value,
    is_meta,
    scratch_events,
    written_argument,
)
from vramplan.engines.torch.record.layouts import META, laid_out
from vramplan.engines.torch.record.marks import WrittenMarks
from vramplan.engines.torch.record.norm_results import kept_of_batch_norm
from vramplan.engines.torch.record.scratch import copied_first, kept_bytes
from vramplan.engines.torch.record.stream import Alloc, Birth, Free, Stream

CUDA = torch.device("cuda", 0)
#: token ids and masks of a long prompt keep their values too: code reads whether any is masked
SMALL_WHOLE = 1 << 18
#: elements of the largest tensor that is real because all it was made of are
_LARGEST_REAL = 1 << 26

#: indexing operators, whose masks become indices as they do on a GPU (`nonzero`)
_INDEXING = ("aten.index.", "aten.index_put", "aten._unsafe_index")
_MASKS = (torch.bool, torch.uint8)
#: products, and where their factors are among the arguments
_PRODUCTS = {"aten.mm.": 0, "aten.bmm.": 0, "aten.addmm.": 1, "aten.baddbmm.": 1}
_SCALARS = ("aten._local_scalar_dense", "aten.item")
_TRUTHS = ("aten.equal.", "aten.is_nonzero")
_ATTENTION = "aten._scaled_dot_product_"


class OnDevice(torch.Tensor):
    """A tensor of the device; `content` is what stands for its data."""

    content: torch.Tensor

    # torch's operators see the wrapper in `__torch_dispatch__` only
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # torch's own

    @staticmethod
    def __new__(cls: type[Self], content: torch.Tensor) -> Self:
        """Wrap `content`, whose strides and offset are the wrapper's."""
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            content.size(),
            strides=content.stride(),
            storage_offset=content.storage_offset(),
            dtype=content.dtype,
            layout=content.layout,
            device=META,
            requires_grad=False,
        )
        made.content = content
        return made

    #: where it says that it is
    device = property(lambda _: CUDA)
    is_cuda = property(lambda _: True)
    is_cpu = property(lambda _: False)
    is_meta = property(lambda _: False)

    def get_device(self) -> int:
        """Return the number of its device."""
        return 0

    def __format__(self, how: str) -> str:  # torch's own asks whether it is no class of another
        """Return a single number as one, and anything else by its shape."""
        return format(self.item() if not self.dim() else repr(self), how)

    def __repr__(self, **_: Value) -> str:  # type: ignore[override]  # there is no data to print
        """Return its shape and type."""
        return f"OnDevice({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # a method here, a function there
        cls,
        func: Operator,
        types: Value,
        args: tuple[Value, ...] = (),
        kwargs: Mapping[str, Value] | None = None,
    ) -> Value:
        """Run an operator outside of a recording (views of weights while modules are made)."""
        out = func(*mapped(content_of, args), **mapped(content_of, dict(kwargs or {})))
        return mapped(lambda x: cls(x) if isinstance(x, torch.Tensor) else x, out)


def mapped(change: Callable[[Value], Value], value: Value) -> Value:
    """Return an operator's arguments or results, whatever is in their lists changed.

    As ``torch.utils._pytree.tree_map`` does, which takes a third of a recording for it.
    """
    kind = type(value)
    if kind is tuple or kind is list:
        return kind([mapped(change, one) for one in value])
    if kind is dict:
        return {name: mapped(change, one) for name, one in value.items()}
    return change(value)


def _on_device(value: Value) -> Iterator[OnDevice]:
    """Yield the device's tensors among arguments, in their order."""
    if isinstance(value, OnDevice):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _on_device(one)
    elif isinstance(value, dict):
        for one in value.values():
            yield from _on_device(one)


def content_of(value: Value) -> Value:
    """Return what is behind a wrapper; everything else as it is."""
    return value.content if isinstance(value, OnDevice) else value


def _grows_large(func: Operator, here: Iterable[OnDevice]) -> bool:
    """Return whether an operator would make a real tensor of many elements out of few.

    A mask between all of a video's tokens is made of their numbers, which are expanded first; what
    only looks at them in another way takes no memory.
    """
    is_view = any(one.alias_info is not None for one in func._schema.returns)
    return not is_view and any(one.content.numel() > _LARGEST_REAL for one in here)


def _is_cuda(device: Value) -> bool:
    return device is not None and torch.device(device).type in ("cuda", "meta")


class WrappedDevice(WrittenMarks, TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types here
    """The dispatch mode; `stream` is where events go now.

    Storages in `weights` were there before the run. Content of up to `small` elements (whole
    numbers: `small_whole`) is real.
    """

    def __init__(
        self,
        stream: Stream,
        weights: set[int],
        *,
        small: int = SMALL,
        small_whole: int = SMALL_WHOLE,
    ) -> None:
        WrittenMarks.__init__(self, stream)
        TorchDispatchMode.__init__(self)  # type: ignore[no-untyped-call]  # as above
        self.weights = weights  # the same set: what dies is taken out of it
        self.births: dict[int, Birth] = {}
        self.small, self.small_whole = small, small_whole
        #: whether a product of two types of numbers is refused, as torch does where nothing casts
        self.is_strict = False
        #: how often a value was read that nobody has
        self.unknown_reads = 0
        #: storages of answers (larger, equal) about values that nobody has
        self._made_up: set[int] = set()
        #: the architectures, by their kernels, on which what was done is the same
        self.alike = frozenset(KERNELS)
        self._shapes: dict[Value, tuple[Value, Value, torch.dtype]] = {}

    def chose(self, alike: frozenset[str]) -> None:
        """Hear on which architectures something is done as on this one."""
        self.alike &= alike

    # ------------------------------------------------------------------ events
    def _die(self, key: int, birth: Birth) -> None:
        if self.births.get(key) is not birth:  # its run is over
            return
        del self.births[key]
        birth.alive = False
        self.stream.events.append(Free(birth))

    def begin_run(self, dims: dict[str, int]) -> Stream:
        """Return the stream of a run that begins now: what was heard before is no part of it."""
        stream = self.stream = Stream("main", dims)
        return stream

    @contextmanager
    def unheard(self) -> Iterator[None]:
        """Run something that the run itself does not do, and whose tensors do not outlive it."""
        before = dict(self.births)
        try:
            with self.into(Stream("unheard", {})):
                yield
        finally:
            self.births = before

    def _born(self, tensor: torch.Tensor, name: str, args: tuple[Value, ...] = ()) -> OnDevice:
        """Return `tensor` wrapped; a storage that is new is written down."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.births and key not in self.weights and storage.nbytes():
            birth = self.births[key] = self.stream.new_birth()
            weakref.finalize(storage, self._die, key, birth).atexit = False
            self.write(Alloc(birth, kept_bytes(name, args, storage.nbytes()), name))
        return OnDevice(tensor)

    def adopt(self, tensor: torch.Tensor, birth: Birth) -> None:
        """Take a storage that stands for one whose birth is written down already."""
        storage = tensor.untyped_storage()
        self.births[storage._cdata] = birth
        weakref.finalize(storage, self._die, storage._cdata, birth).atexit = False

    def forget(self, tensor: torch.Tensor) -> Birth:
        """Return the birth of a storage, whose end is written down by who asks."""
        return self.births.pop(tensor.untyped_storage()._cdata)

    def _wrap(
        self,
        out: Value,
        name: str,
        known: Mapping[int, OnDevice],
        args: tuple[Value, ...] = (),
    ) -> Value:
        """Return results wrapped; what was an argument is that argument again."""

        def wrap(value: Value) -> Value:
            if not isinstance(value, torch.Tensor):
                return value
            return known[id(value)] if id(value) in known else self._born(value, name, args)

        return wrap(out) if isinstance(out, torch.Tensor) else mapped(wrap, out)

    def _is_small(self, shape: torch.Tensor) -> bool:
        is_whole = not (shape.dtype.is_floating_point or shape.dtype.is_complex)
        return shape.numel() <= (self.small_whole if is_whole else self.small)

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
        here = [*_on_device(args), *_on_device(kwargs)]
        known, answer = self._answer(name, func, args, here)
        if known:
            return answer
        if name.startswith("aten._to_copy"):
            return self._copy(func, args[0], kwargs)
        if name.startswith("aten.copy_") and here and not isinstance(args[0], OnDevice):
            source = content_of(args[1])  # to the host: what has no content changes nothing
            return args[0] if is_meta(source) else args[0].copy_(source)
        if name.startswith("aten.multinomial."):
            args = (_drawable(args[0]), *args[1:])
        device = kwargs.get("device")
        if not here:
            return (
                self._make(func, name, args, kwargs) if _is_cuda(device) else func(*args, **kwargs)
            )
        if device is not None and not _is_cuda(device):  # new_zeros(device="cpu")
            return func(*mapped(_on_host, args), **mapped(_on_host, kwargs))
        with self.holding(copied_first(name, args), name):
            out = self._run(func, name, args, kwargs, here)
            for event in scratch_events(self.stream, name, args, out):
                self.write(event)
        return out

    def _answer(
        self, name: str, func: Operator, args: tuple[Value, ...], here: list[OnDevice]
    ) -> tuple[bool, Value]:
        """Return whether an operator is a question about a tensor, and its answer."""
        if name.startswith("prim.device"):
            return True, args[0].device if not here else CUDA
        if name.startswith("aten.record_stream"):
            return True, None
        if name.startswith("aten._fused_sdp_choice"):
            return True, 0
        if not here:
            return False, None
        is_hollow = any(is_meta(one.content) for one in here)
        if name.startswith(_SCALARS):
            self.unknown_reads += is_hollow
            return True, 0 if is_hollow else func(args[0].content)
        if name.startswith(_TRUTHS) and is_hollow:
            self.unknown_reads += 1
            return True, True
        return False, None

    def _copy(self, func: Operator, source: Value, kwargs: dict[str, Value]) -> Value:
        """Copy to the device, on it, or from it."""
        device, dtype = kwargs.get("device"), kwargs.get("dtype")
        is_here = isinstance(source, OnDevice)
        goes_here = _is_cuda(device) if device is not None else is_here
        layout = kwargs.get("memory_format")
        if is_here and goes_here and dtype in (None, source.dtype) and layout in _AS_IT_IS:
            return source  # it is there already: a GPU copies nothing
        content = content_of(source)
        if goes_here:
            hollow = is_meta(content) or not self._is_small(content)
            out = func(content, **{**kwargs, "device": META if hollow else CPU})
            return self._born(out, "aten._to_copy")
        if is_meta(content):
            return torch.zeros(content.shape, dtype=dtype or content.dtype)
        return func(content, **{**kwargs, "device": CPU})

    def _make(
        self, func: Operator, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]
    ) -> Value:
        """Make a tensor of nothing but numbers (zeros, arange, randn)."""
        if "generator" in kwargs:  # one of a GPU cannot be had here
            kwargs["generator"] = None
        out = func(*args, **{**kwargs, "device": META})
        if self._is_small(out):
            out = func(*args, **{**kwargs, "device": CPU})
        return self._born(out, name)

    def _run(
        self,
        func: Operator,
        name: str,
        args: tuple[Value, ...],
        kwargs: dict[str, Value],
        here: list[OnDevice],
    ) -> Value:
        is_hollow = any(is_meta(one.content) for one in here) or _grows_large(func, here)
        if name.startswith(_ATTENTION) and "math" not in name:
            return self._attend(func, name, args, kwargs, is_hollow=is_hollow)
        if self.is_strict:
            _refuse_two_types(name, args)
        known = {id(one.content): one for one in here}
        inner, named = mapped(content_of, args), mapped(content_of, kwargs)
        if "device" in named and named["device"] is not None:
            named["device"] = META if is_hollow else CPU
        if not is_hollow:
            if name.startswith("aten.histc") and not inner[0].dtype.is_floating_point:
                counts = func(inner[0].float(), *inner[1:], **named)  # the CPU counts floats alone
                return self._born(counts.to(inner[0].dtype), name)
            if name.startswith("aten.all.") and self._is_made_up(inner[0]):
                inner = torch.ones_like(inner[0]), *inner[1:]
            out = kept_of_batch_norm(name, inner, func(*inner, **named))
            return self._wrap(out, name, known)
        written = written_argument(func, args)
        if written is not None and not is_meta(content_of(written)):
            return written  # a real tensor keeps its values: what was computed on meta has none
        counted = self._counted(name, inner, kwargs)
        if counted is not None:
            return self._born(counted, name)
        if name.startswith(_INDEXING):
            inner = (inner[0], list(_as_indices(inner[1])), *inner[2:])
        if name.startswith("aten.masked_fill") and isinstance(inner[2], torch.Tensor):
            inner = (*inner[:2], inner[2].to(META))  # its shape function wants the number there too
        inner, named = mapped(_hollow, inner), mapped(_hollow, named)
        out = self._shaped(func, inner, named, is_new=written is None)
        if name.startswith("aten.all.") and written is None and self._is_small(out):
            # whether a mask that nobody has hides nothing: what is asked for here hides nothing
            return self._born(torch.ones(out.shape, dtype=out.dtype), name)
        places = _chosen_along(name, args, kwargs)
        return self._wrap(mapped(self._real_if_index(known, places), out), name, known, args)

    def _shaped(
        self, func: Operator, inner: Value, named: dict[str, Value], *, is_new: bool
    ) -> Value:
        """Return what an operator makes of operands without content, or gives of them.

        Shape functions are slow, many of them Python: what one made of the same is made again.
        """
        key = _form(func, inner, named) if is_new else None
        if key is not None and (known := self._shapes.get(key)) is not None:
            shape, strides, dtype = known
            return torch.empty_strided(shape, strides, dtype=dtype, device=META)
        out = kept_of_batch_norm(str(func), inner, func(*inner, **named))
        if is_new and not named.get("memory_format"):
            out = laid_out(func, out, inner)
        if key is not None and _is_made_plainly(out):
            self._shapes[key] = tuple(out.shape), out.stride(), out.dtype
        return out

    def _real_if_index(self, known: Mapping[int, OnDevice], places: int | None) -> Value:
        """Return what makes small whole numbers real, so that code that reads them goes on.

        They are zeros, or along dimension `places` different ones: what is chosen of some is.
        """

        def real(out: Value) -> Value:
            if not is_meta(out) or out.dtype.is_floating_point or out.dtype.is_complex:
                return out
            key = out.untyped_storage()._cdata
            # where a token goes is counted and sorted, however many there are: without values a
            # router's experts would have none
            most = self.small if places is None else self.small_whole
            if out.numel() > most or id(out) in known or key in self.births:
                return out
            stand_in = torch.zeros(out.shape, dtype=out.dtype)
            if out.dtype == torch.bool:
                keep_in(self._made_up, stand_in)
            if places is not None and out.dim():
                along = [1] * out.dim()
                along[places] = -1
                stand_in += torch.arange(out.shape[places], dtype=out.dtype).reshape(along)
            if key in self.weights:  # a view of a weight: a GPU allocates nothing for it
                keep_in(self.weights, stand_in)
            return stand_in

        return real

    def _counted(
        self, name: str, inner: tuple[Value, ...], kwargs: Mapping[str, Value]
    ) -> torch.Tensor | None:
        """Return a result whose size values decide that nobody has; None for other operators."""
        if name.startswith("aten.bincount"):
            return torch.zeros(max(1, kwargs.get("minlength", 0)), dtype=torch.long)
        if name.startswith("aten.masked_select") and not is_meta(inner[1]):
            count = int(inner[1].expand(inner[0].shape).sum())
            return torch.empty(count, dtype=inner[0].dtype, device=META)
        if name.startswith("aten.nonzero."):
            return self._all_places(inner[0])
        return None

    def _is_made_up(self, answer: Value) -> bool:
        """Return whether a mask that is there stands for one that nobody has."""
        return answer.dtype == torch.bool and answer.untyped_storage()._cdata in self._made_up

    def _all_places(self, mask: torch.Tensor) -> torch.Tensor:
        """Return the indices of all of a tensor's elements: of unknown ones, each may be chosen."""
        self.unknown_reads += 1
        if mask.numel() * max(1, mask.dim()) <= self.small_whole:
            return torch.ones(mask.shape, dtype=torch.bool).nonzero()
        return torch.empty((mask.numel(), mask.dim()), dtype=torch.long, device=META)

    def _attend(
        self,
        func: Operator,
        name: str,
        args: tuple[Value, ...],
        kwargs: dict[str, Value],
        *,
        is_hollow: bool,
    ) -> Value:
        """Run a fused attention by its shape function, which gives a GPU's strides."""
        shapes = func(*mapped(_shape_of, args), **mapped(_shape_of, kwargs))
        shapes = without_sums(name, args, shapes)
        if is_hollow:
            out = mapped(lambda x: self._born(x, name) if is_meta(x) else x, shapes)
        else:
            real = self.attended(name, args, kwargs, shapes)
            out = mapped(lambda x: self._born(x, name) if isinstance(x, torch.Tensor) else x, real)
        return out

    def attended(
        self,
        name: str,  # noqa: ARG002  # for those who compute it
        args: tuple[Value, ...],  # noqa: ARG002  # as above
        kwargs: Mapping[str, Value],  # noqa: ARG002  # as above
        shapes: Value,
    ) -> Value:
        """Return real results of the shapes of an attention, whose values nobody reads."""
        return mapped(_zeros_like, shapes)


def _refuse_two_types(name: str, args: tuple[Value, ...]) -> None:
    """Raise what torch does for a product of two types of numbers: shape functions take any."""
    place = next((at for kind, at in _PRODUCTS.items() if name.startswith(kind)), None)
    if place is None:
        return
    one, other = args[place].dtype, args[place + 1].dtype
    if one != other:
        raise RuntimeError(
            f"expected mat1 and mat2 to have the same dtype, but got: {one}, {other}"
        )


def _chosen_along(name: str, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> int | None:
    """Return the dimension along which an operator's whole numbers all differ; None without."""
    place = {"aten.topk.default": 2, "aten.sort.default": 1}.get(name)
    if place is None and name != "aten.sort.stable":
        return None
    dim: int = kwargs.get("dim", args[place] if place is not None and len(args) > place else -1)
    return dim


_AS_IT_IS = (None, torch.preserve_format)


def _form(func: Operator, inner: Value, named: dict[str, Value]) -> Value | None:
    """Return what decides the shape of a pointwise result or a convolution's; None for others.

    None, too, where an operand has content: code may go by it.
    """
    if torch.Tag.pointwise not in func.tags and func is not torch.ops.aten.convolution.default:
        return None
    if any(one.alias_info is not None for one in func._schema.returns):
        return None
    told: list[Value] = [func]
    for value in (*inner, *named.items()):
        if isinstance(value, torch.Tensor):
            if not is_meta(value) or value.layout is not torch.strided:
                return None
            told.append((value.shape, value.stride(), value.dtype))
        elif isinstance(value, list):
            told.append(tuple(value))
        else:
            told.append((type(value), value))
    return tuple(told)


def _is_made_plainly(out: Value) -> bool:
    """Return whether a result is one tensor without content that begins where its storage does."""
    return (
        isinstance(out, torch.Tensor)
        and is_meta(out)
        and out.storage_offset() == 0
        and out.untyped_storage().nbytes()
        == torch.empty_strided(out.shape, out.stride(), dtype=out.dtype, device=META)
        .untyped_storage()
        .nbytes()
    )


def _zeros_like(value: Value) -> Value:
    if not is_meta(value):
        return value
    count = value.untyped_storage().nbytes() // value.element_size()
    return torch.zeros(count, dtype=value.dtype).as_strided(value.shape, value.stride())


def _shape_of(value: Value) -> Value:
    return value.content.to(META) if isinstance(value, OnDevice) else value


def _hollow(value: Value) -> Value:
    """Return a real tensor as one of no content; single numbers stay, as a GPU takes them."""
    if isinstance(value, torch.Tensor) and not is_meta(value) and value.dim():
        return value.to(META)
    return value


def _on_host(value: Value) -> Value:
    content = content_of(value)
    return torch.zeros(content.shape, dtype=content.dtype) if is_meta(content) else content


def _drawable(chances: torch.Tensor) -> torch.Tensor:
    """Return chances of which one can be drawn: where nobody has them, they are all alike."""
    content = content_of(chances)
    if is_meta(content) or bool((content.sum(-1) > 0).all()):
        return chances
    alike = torch.ones_like(content)
    return OnDevice(alike) if isinstance(chances, OnDevice) else alike


def _as_indices(indices: Iterable[Value]) -> Iterator[Value]:
    for index in indices:
        if isinstance(index, torch.Tensor) and not is_meta(index) and index.dtype in _MASKS:
            yield from torch.nonzero(index, as_tuple=True)
        else:
            yield index


class Functions(Attention):
    """What Python's side of torch does otherwise on a GPU, and what wants values on the host."""

    def __torch_function__(
        self,
        func: Value,
        types: Value,
        args: tuple[Value, ...] = (),
        kwargs: dict[str, Value] | None = None,
    ) -> Value:
        kwargs = dict(kwargs or {})
        if func in _FROM_DATA and _is_cuda(kwargs.get("device")):
            if isinstance(args[0], OnDevice):  # as_tensor of what is there
                return args[0].to(kwargs.get("dtype") or args[0].dtype)
            del kwargs["device"]
            return func(mapped(_number_of, args[0]), *args[1:], **kwargs).to(CUDA)
        if func in _FROM_DATA and args and (kind := _kind_of_numbers(args[0])) is not None:
            kwargs.setdefault("dtype", kind)  # a list of numbers that are on the device
            return func(mapped(_number_of, args[0]), *args[1:], **kwargs)
        if func in _AS_NUMBERS and isinstance(args[0], OnDevice) and not is_meta(args[0].content):
            return func(args[0].content)  # torch.Tensor([...]) asks with every mode switched off
        if func in _TO_HOST and isinstance(args[0], OnDevice):
            return func(args[0].cpu(), *args[1:], **kwargs)
        if func is torch.Tensor.new_tensor and isinstance(args[0], OnDevice):
            device = kwargs.pop("device", None) or CUDA
            return torch.tensor(args[1], dtype=kwargs.pop("dtype", args[0].dtype)).to(device)
        if func is torch.Tensor.to and isinstance(args[0], OnDevice) and kwargs.pop("copy", False):
            moved = func(*args, **kwargs)
            return moved.clone() if moved is args[0] else moved
        if func is torch.rms_norm and isinstance(args[0], OnDevice):
            return _rms_norm(*args, **kwargs)
        if func in _CHOOSING and isinstance(args[0], OnDevice):
            args = args[0], _with_indices(args[1]), *args[2:]
        return super().__torch_function__(func, types, args, kwargs)


def _with_indices(index: Value) -> Value:
    """Return what a tensor is indexed with, lists of numbers as tensors of the device.

    torch makes them there itself, where its own code sees a tensor of `meta` and makes one without
    values.
    """
    if isinstance(index, tuple):
        return tuple(map(_with_indices, index))
    if isinstance(index, list) and index and all(type(one) in (int, bool) for one in index):
        return torch.tensor(index).to(CUDA)
    return index


def _number_of(value: Value) -> Value:
    """Return a tensor's number where it is one of a list's; everything else as it is."""
    return value.cpu().item() if isinstance(value, OnDevice) else value


def _kind_of_numbers(data: Value) -> torch.dtype | None:
    """Return the type of a list's first tensor of the device; None where it has none."""
    if not isinstance(data, (list, tuple)):
        return None
    return next((one.dtype for one in _on_device(data)), None)


_FROM_DATA = (torch.tensor, torch.as_tensor, torch.asarray)
_CHOOSING = (torch.Tensor.__getitem__, torch.Tensor.__setitem__)
_TO_HOST = (torch.Tensor.tolist, torch.Tensor.item, torch.Tensor.numpy)
_AS_NUMBERS = (torch.Tensor.__float__, torch.Tensor.__int__, torch.Tensor.__index__)


def _rms_norm(
    source: torch.Tensor,
    normalized_shape: Iterable[int],
    weight: torch.Tensor | None = None,
    eps: float | None = None,
) -> torch.Tensor:
    """Normalise as CUDA's fused kernel does: its result and a number for each row, no more.

    On other devices torch composes it out of operators with temporaries of their own.
    ATen/native/layer_norm.cpp, rms_norm_symint; cuda/layer_norm_kernel.cu, _fused_rms_norm_cuda.
    """
    if weight is not None and weight.dtype != source.dtype:  # then it is composed there too
        composed: torch.Tensor = torch.ops.aten._fused_rms_norm(
            source, list(normalized_shape), weight, eps
        )[0]
        return composed
    whole = source.contiguous()
    out = torch.empty_like(whole, memory_format=torch.contiguous_format)
    rows = whole.numel()
    for side in normalized_shape:
        rows //= side
    wide = torch.float32 if whole.dtype in (torch.float16, torch.bfloat16) else whole.dtype
    torch.empty(rows, dtype=wide, device=source.device)
    return out


#: an architecture that has each kernel as its best: what code asks that chooses by it
_CAPABILITIES = {"flash": (8, 6), "cudnn": (9, 0), "efficient": (7, 5), "math": (8, 6)}


@contextmanager
def cuda_asked_for(
    kernel: str, chose: Callable[[frozenset[str]], None] = lambda _: None
) -> Iterator[None]:
    """Let torch be asked for ``cuda`` where it was built without, or has no GPU.

    `chose` hears where it is asked which architecture it is.
    """

    def capability(_device: Value = None) -> tuple[int, int]:
        chose(frozenset({kernel}))
        return _CAPABILITIES[kernel]

    pretended: dict[str, Value] = {
        "_lazy_init": lambda: None,
        "get_device_capability": capability,
        "current_device": lambda: 0,
        "synchronize": lambda _device=None: None,
        "empty_cache": lambda: None,
    }
    real = {name: getattr(torch.cuda, name) for name in pretended}
    generator = torch.Generator
    try:
        for name, answer in pretended.items():
            setattr(torch.cuda, name, answer)
        torch.Generator = _Generator  # type: ignore[misc]  # a class in the place of a class
        yield
    finally:
        torch.Generator = generator  # type: ignore[misc]  # as above
        for name, answer in real.items():
            setattr(torch.cuda, name, answer)


@contextmanager
def without_inference_mode() -> Iterator[None]:
    """Let code that asks for torch's inference mode run without it, where no gradient is kept.

    A wrapped tensor cannot be made there ("Cannot set version_counter for inference tensor"), and
    what is allocated is the same.
    """
    kind = torch.inference_mode
    real = kind.__enter__, kind.__exit__
    try:
        kind.__enter__ = lambda _: None  # type: ignore[method-assign]  # put back below
        kind.__exit__ = lambda *_: None  # type: ignore[method-assign]  # as above
        yield
    finally:
        kind.__enter__, kind.__exit__ = real  # type: ignore[method-assign]  # as above


class _KindOfGenerator(type(torch._C.Generator)):  # type: ignore[misc]  # its own kind
    """What says of any generator that it is one, also where `_Generator` has taken its place."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, torch._C.Generator)


class _Generator(torch._C.Generator, metaclass=_KindOfGenerator):
    """A generator of the device; of another device, torch's own.

    Its numbers are a CPU's, and nobody draws them: `WrappedDevice` leaves it away.
    """

    def __new__(cls, device: Value = "cpu") -> Value:
        if _is_cuda(device):
            return super().__new__(cls, "cpu")  # type: ignore[call-arg]  # its stub has none
        return torch._C.Generator(device)

    def __init__(self, device: Value = "cpu") -> None:
        """Be as `__new__` made it."""

    device = property(lambda _: CUDA)


def keep_in(storages: set[int], content: torch.Tensor) -> None:
    """Add the identity of a tensor's storage to a set, for as long as it lives.

    A module that is moved away while a pipeline runs lets its storages go, and whatever is
    allocated next may be where one of them was.
    """
    storage = content.untyped_storage()
    storages.add(storage._cdata)
    weakref.finalize(storage, storages.discard, storage._cdata).atexit = False


def place_on_device(modules: Iterable[torch.nn.Module]) -> set[int]:
    """Wrap every parameter and buffer of `modules`; return the identities of their storages.

    Tied tensors stay tied.
    """
    found: set[int] = set()
    wrapped: dict[int, tuple[OnDevice, Any]] = {}
    for module in modules:
        for part in module.modules():
            for tensors in (part._parameters, part._buffers):
                for name, tensor in list(tensors.items()):
                    if tensor is None or isinstance(tensor, OnDevice):  # of a part of two modules
                        continue
                    if id(tensor) not in wrapped:
                        content = tensor.detach()
                        made = OnDevice(content)
                        if isinstance(tensor, torch.nn.Parameter):
                            made._is_param = True  # torch's own mark
                            # as `from_pretrained` leaves it: linear layers then copy an input that
                            # is not contiguous. ATen/native/LinearAlgebra.cpp has that: should_fold
                            made.requires_grad_(content.is_floating_point())
                        keep_in(found, content)
                        wrapped[id(tensor)] = made, tensor  # kept, so that no identity is reused
                    tensors[name] = wrapped[id(tensor)][0]  # type: ignore[assignment]  # a parameter
    return found
