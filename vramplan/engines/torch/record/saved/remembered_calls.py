"""Calls of modules that are run once for each shape of what they are given, and then remembered.

What a module allocates follows from its own shapes and from those of what it is given. So one of
fifty layers that are alike is run, and the others write down the same events; so is a denoising
step's transformer, and a text encoder at other image sizes. What cannot be told apart from its
surroundings (it keeps something, frees what is not its own, makes values that others read, changes
a list it was given, is given an object that nobody knows) is run each time. A KV cache is known
(`layer_caches`): what it keeps for a layer is given to that layer's call, and changed by it.
"""

from __future__ import annotations

import functools
import hashlib
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_unflatten

from vramplan.engines.torch.attention_kernel import KERNELS
from vramplan.engines.torch.record.device import is_meta
from vramplan.engines.torch.record.saved.layer_caches import NUMBERS, LayerCache, layer_number
from vramplan.engines.torch.record.saved.wrapped import OnDevice, WrappedDevice, content_of
from vramplan.engines.torch.record.stream import Alloc, Birth, Free, Gemm, Workspace
from vramplan.quick_dataclass import dataclass

Value = Any
_PLAIN = (int, float, str, bool, type(None), torch.dtype, torch.device, torch.Size)
#: layers of a list that are alike are remembered where there are so many
_LEAST_ALIKE = 3
#: what an autoencoder does besides `forward` whose result is a tensor
_DECODE = "decode"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Output:
    """A tensor that a call gave: a storage of its own, or one of what it was given."""

    storage: int  # counted among its own allocations, or from -1 down among the given storages
    elements: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Same:
    """What a layer's cache kept before, by its number there."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Number:
    """A single number that a layer's cache keeps on the device."""

    value: int
    dtype: torch.dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """What a call did: ``(size, operator)`` births, numbers of births that die, other events.

    What dies of what was given is numbered from -1 down. `kept` is what a layer's cache keeps then.
    """

    events: tuple[Value, ...]
    leaves: tuple[Value, ...]
    spec: Value
    alike: frozenset[str]  # the architectures, by their kernels, on which it does so
    kept: tuple[tuple[int, str, Value], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A call before it runs: what it is given, and where its events will begin."""

    what: Value
    cache: LayerCache
    others: Value  # what the cache keeps for other layers
    storages: Mapping[int, int]  # of what is given, by their identities
    lives: Mapping[int, int]  # births of what the cache keeps, each with its storage
    lent: Sequence[Value]
    kept: Sequence[Value]
    stream: Value
    start: int


Calls = dict[Value, Remembered | None]


class Memory:
    """The calls that are remembered; `calls` may be handed from one recording to another.

    None stands for a call that could not be remembered, and is not from then on. Where it
    `doubts`, no layer's call is remembered, and a component's when it did the same again. What is
    remembered goes by the `dtype` of the run and the `kernel` of its architecture, and by those of
    the others on which a call would have chosen the same.
    """

    def __init__(
        self,
        device: WrappedDevice,
        calls: Calls,
        dtype: str,
        kernel: str,
        *,
        doubts: bool = False,
    ) -> None:
        self._device = device
        self._calls = calls
        self._dtype, self._kernel = dtype, kernel
        self._doubts = doubts
        self._once: Calls = {}
        self.fresh: Calls = {}

    def watch(self, modules: Mapping[str, torch.nn.Module]) -> None:
        """Remember the calls of components, and of the layers in them that are alike."""
        for name, module in modules.items():
            self._wrap(module, (name,))
            if callable(getattr(module, _DECODE, None)):
                self._wrap(module, (name, _DECODE), _DECODE)
            if self._doubts:
                continue
            for inside in module.modules():
                if isinstance(inside, torch.nn.ModuleList) and len(inside) >= _LEAST_ALIKE:
                    for layer in inside:
                        if layer is not None:  # a place that a class leaves empty
                            self._wrap(layer, _description(layer))

    def _wrap(self, module: torch.nn.Module, form: Value, method: str = "forward") -> None:
        forward = getattr(module, method)
        number = layer_number(module)

        @functools.wraps(forward)
        def remembered(*args: Value, **kwargs: Value) -> Value:
            asked = self._ask(form, number, args, kwargs)
            known = None if asked is None else self._calls.get(self._key(asked))
            if asked is not None and known is not None:
                self._device.chose(known.alike)
                given, _ = _given(tree_flatten((args, kwargs))[0], asked.cache)
                return self._again(known, given, asked.cache)
            before, self._device.alike = self._device.alike, frozenset(KERNELS)
            result = forward(*args, **kwargs)
            # of a first call that kept a table the others are no likeness: that is kept as None
            if asked is not None and self._key(asked) not in self._calls:
                found = self._what_happened(asked, result, tree_flatten((args, kwargs))[0])
                self._keep(asked, found)
            self._device.chose(before)
            return result

        setattr(module, method, remembered)

    def _key(self, asked: _Asked, kernel: str | None = None) -> Value:
        return self._dtype, kernel or self._kernel, asked.what

    def _keep(self, asked: _Asked, found: Remembered | None) -> None:
        if self._doubts:
            key = self._key(asked)
            if key not in self._once:
                self._once[key] = found
                return
            found = found if self._once[key] == found else None
        for kernel in (self._kernel,) if found is None else found.alike:
            key = self._key(asked, kernel)
            self._calls[key] = self.fresh[key] = found

    def _ask(self, form: Value, number: int | None, args: Value, kwargs: Value) -> _Asked | None:
        """Return what a call is given; None where that cannot be said.

        It may give up what is in a list or a cache while it runs: nothing here holds that.
        """
        flat, spec = tree_flatten((args, kwargs))
        cache = LayerCache.of(flat, number)
        given, before = _given(flat, cache)
        storages: dict[int, int] = {}
        described = _describe(given, storages, numbers_from=len(flat))
        if described is None:
            return None
        return _Asked(
            what=(form, str(spec), described, cache.form()),
            cache=cache,
            others=cache.others(),
            storages=storages,
            lives=self._lives(before),
            lent=_lent(flat),
            kept=_lent(before),
            stream=self._device.stream,
            start=len(self._device.stream.events),
        )

    def _lives(self, before: Iterable[Value]) -> dict[int, int]:
        """Return the births of what a cache keeps, each with the identity of its storage."""
        keys = [
            value.content.untyped_storage()._cdata
            for value in before
            if isinstance(value, OnDevice)
        ]
        births = self._device.births
        return {id(births[key]): key for key in keys if key in births}

    def _what_happened(
        self, asked: _Asked, result: Value, after: Sequence[Value]
    ) -> Remembered | None:
        """Return what a call did; None for what is not to be remembered."""
        is_alike = _is_still(asked.lent, after) and asked.others == asked.cache.others()
        may_die = {birth: -1 - asked.storages[key] for birth, key in asked.lives.items()}
        happened = _happened(asked.stream.events[asked.start :], may_die)
        if happened is None or not is_alike or self._device.stream is not asked.stream:
            return None
        events, births, alive = happened
        told = _Told(self._device.births, births, alive, asked.storages)
        leaves, spec = tree_flatten(result)
        described = [told.plain(leaf) for leaf in leaves]
        places = {
            id(value): number
            for number, one in enumerate(asked.kept)
            if isinstance(one, weakref.ref) and (value := one()) is not None
        }
        keeps = [
            (place, name, told.kept(value, places)) for place, name, value in asked.cache.values()
        ]
        if told.is_unknown or alive - told.left:  # it keeps something
            return None
        return Remembered(
            events=tuple(events),
            leaves=tuple(described),
            spec=spec,
            alike=self._device.alike,
            kept=tuple(keeps),
        )

    def _again(self, known: Remembered, given: Sequence[Value], cache: LayerCache) -> Value:
        device = self._device
        births: list[Birth] = []
        ours = list(_storages(given))
        for event in known.events:
            if isinstance(event, tuple):
                births.append(device.stream.new_birth())
                device.write(Alloc(births[-1], *event))
            elif isinstance(event, int):
                birth = births[event] if event >= 0 else device.forget(ours[-1 - event])
                birth.alive = False
                device.write(Free(birth))
            else:
                device.write(event)
        bases: dict[int, torch.Tensor] = {}

        def made(leaf: Value) -> Value:
            if not isinstance(leaf, _Output):
                return leaf
            if leaf.storage not in bases:
                bases[leaf.storage] = self._base(leaf, births, ours)
            base = bases[leaf.storage]
            if base.dtype != leaf.dtype:
                base = base.view(leaf.dtype)
            return OnDevice(base.as_strided(leaf.shape, leaf.stride, leaf.offset))

        with _disable_current_modes():
            leaves = [made(leaf) for leaf in known.leaves]
            if known.kept:
                kept = [value for _, _, value in cache.values()]
                cache.keep(
                    (place, name, self._kept(value, kept, births, made))
                    for place, name, value in known.kept
                )
        return tree_unflatten(leaves, known.spec)

    def _kept(
        self,
        value: Value,
        before: Sequence[Value],
        births: Sequence[Birth],
        made: Callable[[Value], Value],
    ) -> Value:
        """Return what a layer's cache keeps now."""
        if isinstance(value, _Same):
            return before[value.number]
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], _Number):
            number = torch.tensor(value[1].value, dtype=value[1].dtype)
            self._device.adopt(number, births[value[0]])
            return OnDevice(number)
        return made(value)

    def _base(
        self, leaf: _Output, births: Sequence[Birth], ours: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        if leaf.storage < 0:
            return ours[-1 - leaf.storage]
        base = torch.empty(leaf.elements, dtype=leaf.dtype, device="meta")
        self._device.adopt(base, births[leaf.storage])
        return base


class _Told:
    """What a call's results are made of, so that it can be said again when it is remembered."""

    def __init__(
        self,
        known: Mapping[int, Birth],
        births: Mapping[int, int],
        alive: set[int],
        given: Mapping[int, int],
    ) -> None:
        self._known, self._births, self._alive, self._given = known, births, alive, given
        self.left: set[int] = set()  # births of the call that live on in what was told
        self.is_unknown = False  # whether something could not be told

    def plain(self, leaf: Value) -> Value:
        """Tell a result: a value, or a tensor without one."""
        if isinstance(leaf, _PLAIN):
            return leaf
        if isinstance(leaf, OnDevice) and is_meta(leaf.content):
            if (own := self._own(leaf)) is not None:
                return _output(leaf, own)
            key = leaf.content.untyped_storage()._cdata
            if key in self._given:
                return _output(leaf, -1 - self._given[key])
        self.is_unknown = True
        return None

    def kept(self, value: Value, places: Mapping[int, int]) -> Value:
        """Tell what a layer's cache keeps: what it kept before (`places`), or something new."""
        if id(value) in places:
            return _Same(number=places[id(value)])
        number = _single_number(value)
        if number is None or not isinstance(value, OnDevice):
            return self.plain(value)
        own = self._own(value)
        if own is None:
            self.is_unknown = True
        return own, number

    def _own(self, leaf: OnDevice) -> int | None:
        birth = self._known.get(leaf.content.untyped_storage()._cdata)
        if birth is None or id(birth) not in self._alive:
            return None
        self.left.add(id(birth))
        return self._births[id(birth)]


def _given(flat: Sequence[Value], cache: LayerCache) -> tuple[list[Value], list[Value]]:
    """Return what a call is given, and of it what a cache keeps for its layer.

    The cache itself is no value; what it keeps is, behind the others.
    """
    kept = [value for _, _, value in cache.values()]
    is_cache = cache.whole is not None
    return [None if is_cache and one is cache.whole else one for one in flat] + kept, kept


def _lent(values: Iterable[Value]) -> list[Value]:
    """Return values, of tensors references that keep nothing alive."""
    return [weakref.ref(one) if isinstance(one, torch.Tensor) else one for one in values]


def _is_still(lent: Sequence[Value], now: Sequence[Value]) -> bool:
    """Return whether these are the values that were lent, each the same object."""
    return len(lent) == len(now) and all(
        (one() if isinstance(one, weakref.ref) else one) is other
        for one, other in zip(lent, now, strict=True)
    )


def _happened(
    events: Sequence[Value], may_die: Mapping[int, int]
) -> tuple[list[Value], dict[int, int], set[int]] | None:
    """Return what a call did, the numbers of its births, and which of them are alive.

    `may_die` are births that it was given and may end. None for what is not its own alone.
    """
    births: dict[int, int] = {}
    alive: set[int] = set()
    found: list[Value] = []
    for event in events:
        if isinstance(event, Alloc):
            births[id(event.birth)] = len(births)
            alive.add(id(event.birth))
            found.append((event.size_bytes, event.operator))
        elif isinstance(event, Free):
            if id(event.birth) in alive:
                alive.remove(id(event.birth))
                found.append(births[id(event.birth)])
            elif id(event.birth) in may_die:
                found.append(may_die[id(event.birth)])
            else:
                return None
        elif isinstance(event, (Workspace, Gemm)):
            found.append(event)
        else:
            return None
    return found, births, alive


def _output(leaf: OnDevice, storage: int) -> _Output:
    content = leaf.content
    return _Output(
        storage=storage,
        elements=content.untyped_storage().nbytes() // content.element_size(),
        dtype=content.dtype,
        shape=tuple(content.shape),
        stride=tuple(content.stride()),
        offset=int(content.storage_offset()),
    )


def _storages(given: Sequence[Value]) -> Iterator[torch.Tensor]:
    """Yield a tensor of each storage on the device that a call is given, in their order."""
    seen: set[int] = set()
    for leaf in given:
        if isinstance(leaf, OnDevice):
            key = leaf.content.untyped_storage()._cdata
            if key not in seen:
                seen.add(key)
                yield leaf.content


def _single_number(value: Value) -> _Number | None:
    """Return the number that a tensor is, if that is known and it is one alone."""
    content = content_of(value)
    if not isinstance(content, torch.Tensor) or is_meta(content) or content.dim():
        return None
    if content.dtype.is_floating_point or content.dtype.is_complex:
        return None
    with _disable_current_modes():
        return _Number(value=int(content), dtype=content.dtype)


def _describe(given: Sequence[Value], storages: dict[int, int], numbers_from: int) -> Value | None:
    """Return what a call is given; None where that cannot be said.

    Of tensors this has no values but those of masks and tokens, by which code cuts others, and
    single numbers from `numbers_from` on, which a cache keeps.
    """
    parts: list[Value] = []
    for place, leaf in enumerate(given):
        if isinstance(leaf, torch.Tensor):
            content = content_of(leaf)
            key = content.untyped_storage()._cdata
            is_here = isinstance(leaf, OnDevice)
            number = storages.setdefault(key, len(storages)) if is_here else -1
            where = (is_here, is_meta(content), number)
            value = _single_number(leaf) if place >= numbers_from else _checksum(content)
            parts.append((tuple(leaf.shape), tuple(content.stride()), leaf.dtype, *where, value))
        elif isinstance(leaf, _PLAIN):
            parts.append((type(leaf).__name__, leaf))
        else:
            return None
    return tuple(parts)


def _checksum(content: torch.Tensor) -> str | None:
    """Return what tells the values of whole numbers in rows: which tokens are there, or count.

    None for what has no values. A step's time is a number for each row, and no part of this.
    """
    is_whole = not (content.dtype.is_floating_point or content.dtype.is_complex)
    if is_meta(content) or not is_whole or content.dim() < 2 or content.shape[-1] < 2:
        return None
    with _disable_current_modes():
        return hashlib.sha256(content.contiguous().numpy().tobytes()).hexdigest()


def _description(layer: torch.nn.Module) -> Value:
    """Return what makes two layers alike: classes, plain attributes, shapes of tensors."""
    found: list[Value] = []
    for inside in layer.modules():
        plain = tuple(
            (name, repr(value))
            for name, value in sorted(inside.__dict__.items())
            if isinstance(value, (*_PLAIN, tuple, list)) and name not in NUMBERS
        )
        tensors = (*inside._parameters.items(), *inside._buffers.items())
        shapes = tuple(
            (name, None if one is None else (tuple(one.shape), one.dtype)) for name, one in tensors
        )
        found.append((type(inside).__qualname__, plain, shapes))
    return tuple(found)
