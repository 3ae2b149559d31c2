"""What a KV cache of transformers keeps for one layer: given to its call, and changed by it.

A decoder's layer reads and writes what the cache has under its own number, and nothing else of it.
So a call of it can be remembered by that (`remembered_calls`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, Self

import torch

Value = Any
Kept = tuple[int, str, Value]

#: attributes that say which layer it is, and decide nothing about what it allocates
NUMBERS = ("layer_idx", "layer_index", "block_idx", "idx", "layer_id")
#: a cache of two, and which of the second's layers are written
_HALVES, _WRITTEN = ("self_attention_cache", "cross_attention_cache"), "is_updated"


def layer_number(layer: torch.nn.Module) -> int | None:
    """Return which layer of its model this is; None where its modules do not say one number."""
    found = {
        inside.__dict__[name]
        for inside in layer.modules()
        for name in NUMBERS
        if type(inside.__dict__.get(name)) is int
    }
    return found.pop() if len(found) == 1 else None


class LayerCache:
    """The part of a call's KV cache that is one layer's; of no cache where it has none."""

    def __init__(self, whole: Value, places: Sequence[tuple[dict[Value, Value], Value]]) -> None:
        self.whole = whole  # the cache, None where there is none
        self._places = places  # what keeps something, and under which key alone (None: under any)

    @classmethod
    def of(cls, given: Iterable[Value], number: int | None) -> Self:
        """Return the layer's part of the one cache among what a call is given."""
        known = sys.modules.get("transformers.cache_utils")
        if known is None or number is None:
            return cls(None, [])
        caches = {id(one): one for one in given if isinstance(one, known.Cache)}
        if len(caches) != 1:
            return cls(None, [])
        (whole,) = caches.values()
        places = _places(whole, number)
        return cls(None, []) if places is None else cls(whole, places)

    def form(self) -> Value:
        """Return which names it keeps something by, and in what."""
        kinds = [type(one).__qualname__ for one in _layers(self.whole)]
        return tuple(kinds[:1]), tuple((place, name) for place, name, _ in self.values())

    def values(self) -> list[Kept]:
        """Return what it keeps: in which place, by which name, and what."""
        return [
            (place, name, value)
            for place, (keeper, key) in enumerate(self._places)
            for name, value in keeper.items()
            if key is None or name == key
        ]

    def keep(self, kept: Iterable[Kept]) -> None:
        """Keep this instead of what is kept."""
        kept = list(kept)
        for place, (keeper, key) in enumerate(self._places):
            for name in [name for name in keeper if key is None or name == key]:
                del keeper[name]
            keeper.update({name: value for where, name, value in kept if where == place})

    def others(self) -> list[tuple[Value, int]]:
        """Return the identities of what the cache keeps for other layers."""
        ours = {id(keeper) for keeper, _ in self._places}
        return [
            (name, id(value))
            for layer in _layers(self.whole)
            if id(vars(layer)) not in ours
            for name, value in vars(layer).items()
        ]


def _layers(cache: Value) -> list[Value]:
    halves = [getattr(cache, half, None) for half in _HALVES]
    if None not in halves:
        return [layer for half in halves for layer in _layers(half)]
    return list(getattr(cache, "layers", None) or ())


def _places(cache: Value, number: int) -> list[tuple[dict[Value, Value], Value]] | None:
    """Return what keeps something for a layer; None where the cache has no place for it yet."""
    halves = [getattr(cache, half, None) for half in _HALVES]
    if None in halves:
        layers = getattr(cache, "layers", None)
        if not isinstance(layers, list) or number >= len(layers):
            return None
        return [(layers[number].__dict__, None)]
    parts = [_places(half, number) for half in halves]
    if None in parts:
        return None
    found = [place for part in parts for place in part or ()]
    written = getattr(cache, _WRITTEN, None)
    return [*found, (written, number)] if isinstance(written, dict) else found
