"""The quantities that the sizes of a graph tape are made of, and what tells layers apart.

They are numbers of a header, of its tensors' shapes and of the settings, each under a name of its
own. What a header does not say is not there; nothing is put in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from vramplan.engines.ggml.closed_form import Batch, reserved_tokens
from vramplan.engines.ggml.weights import GgmlModel, GgmlTensor
from vramplan.quick_typing import TYPE_CHECKING
from vramplan.sources.block_sizes import BLOCKS

if TYPE_CHECKING:
    from vramplan.engines.ggml.graph.shapes import LayerShape

#: quantities of the settings: they have no part in what a model must be
OF_SETTINGS = (
    "tokens", "outputs", "sequences", "streams", "cells", "window_cells", "own_cells",
    "tokens_each", "tokens_stream", "key_32", "value_32",
)  # fmt: skip


#: keys that a file's tensors tell too, or that nothing is made of
_TOLD_ELSEWHERE = frozenset({"vocab_size", "context_length", "block_count", "embedding_length"})
#: heads are turned in squares of this, or of it times a power of two
_TURNED_STEP = 64


#: keys that a layer's shape has a default for, the engine's own, and what that is called here
SHAPED = {
    "attention.head_count": "heads",
    "attention.head_count_kv": "kv_heads",
    "attention.key_length": "head_k",
    "attention.value_length": "head_v",
    "attention.key_length_swa": "head_k",
    "attention.value_length_swa": "head_v",
    "feed_forward_length": "feed_forward",
    "rope.dimension_count": "head_k",
}


class Quantities:
    """All quantities of a model at a batch; `of(layer)` with those of a layer, -1 of none."""

    def __init__(self, model: GgmlModel, batch: Batch) -> None:
        self.model, self.batch = model, batch
        assert model.language is not None
        self._layers = model.language.layers

    @cached_property
    def settings(self) -> Mapping[str, int]:
        """Those of the settings: of `key_32` and `value_32`, the bytes of 32 elements."""
        batch = self.batch
        tokens, sequences = reserved_tokens(batch), batch.sequences
        streams = batch.streams
        return {
            "tokens": tokens,
            "outputs": min(sequences, tokens),
            "sequences": sequences,
            "streams": streams,
            "cells": batch.context,
            "window_cells": batch.window_context,
            "tokens_each": tokens // sequences,
            "tokens_stream": tokens // streams,
            "key_32": _bytes_of_32(batch.cache_type),
            "value_32": _bytes_of_32(batch.type_of_values),
        }

    @cached_property
    def _whole(self) -> Mapping[str, int]:
        model = self.model
        shape = model.language
        assert shape is not None
        found = {"embedding": model.embedding, "layers": model.layers}
        for tensor in model.tensors:
            if not is_of_layer(tensor):
                found |= _sides(tensor.name, tensor.shape)
        for key, value in model.keys.items():
            if key in _TOLD_ELSEWHERE:
                continue
            if isinstance(value, int):
                found[f"key:{key}"] = int(value)
            elif isinstance(value, tuple) and len(value) < model.layers:
                found |= {f"key:{key}:{at}": int(one) for at, one in enumerate(value[:8])}
        return found

    @cached_property
    def _of_layers(self) -> tuple[Mapping[str, int], ...]:
        made: list[dict[str, int]] = []
        cells, window = self.batch.context, self.batch.window_context
        for number, layer in enumerate(self._layers):
            found = _of_layer(layer)
            found["own_cells"] = window if layer.is_windowed else cells
            for key, value in self.model.keys.items():
                if isinstance(value, tuple) and len(value) >= self.model.layers:
                    found[f"key:{key}"] = int(value[number])
            for key, name in SHAPED.items():
                if key not in self.model.keys:
                    found[f"key:{key}"] = found[name]
            made.append(found)
        for tensor in self.model.tensors:
            if is_of_layer(tensor):
                assert tensor.layer is not None
                name = tensor.name.split(".", 2)[-1]
                made[tensor.layer] |= _sides(name, tensor.shape)
        return tuple(made)

    def of(self, layer: int) -> Mapping[str, int]:
        """Return all quantities of a layer, or of none."""
        own = self._of_layers[layer] if layer >= 0 else {}
        return {**self._whole, **self.settings, **own}

    def cache_of(self, layer: int) -> int:
        """Return the layer whose cache a layer reads: its own, or that of the last of its kind."""
        shape = self._layers[layer]
        if not shape.shares_cache:
            return layer
        same = [
            number
            for number, one in enumerate(self._layers)
            if not one.shares_cache and one.is_windowed == shape.is_windowed
        ]
        return same[-1] if same else -1


def is_of_layer(tensor: GgmlTensor) -> bool:
    """Return whether a tensor is one layer's alone: factors of rotations are every layer's."""
    return tensor.layer is not None and tensor.name.startswith("blk.")


def _of_layer(layer: LayerShape) -> dict[str, int]:
    found = {
        "heads": layer.heads,
        "kv_heads": layer.kv_heads,
        "head_k": layer.head_k,
        "head_v": layer.head_v,
        "feed_forward": layer.feed_forward,
        "power_k": layer.head_k & -layer.head_k,
        "parts_k": layer.head_k // (layer.head_k & -layer.head_k),
    }
    if layer.kv_heads and not layer.heads % layer.kv_heads:
        found["group"] = layer.heads // layer.kv_heads
    return found


def _sides(name: str, shape: tuple[int, ...]) -> dict[str, int]:
    return {f"{name}:{at}": side for at, side in enumerate(shape)}


def _bytes_of_32(type_name: str) -> int:
    block, size = BLOCKS[type_name]
    return size * 32 // block


def _is_turned(type_name: str, heads: set[int]) -> bool:
    """Return whether heads of a cache in blocks are turned, which spreads what is large in them.

    Source: llama.cpp, src/llama-kv-cache.cpp (attn_rot_k, attn_rot_v).
    """
    return BLOCKS[type_name][0] > 1 and len(heads) == 1 and min(heads) % _TURNED_STEP == 0


def _values(layer: LayerShape) -> int:
    """Return the elements of a token's values in a layer's cache.

    Without flash attention they are filled up to those of the widest layer. Source: llama.cpp,
    src/llama-kv-cache.cpp (cpy_v).
    """
    return layer.kv_heads * layer.head_v if layer.has_attention else 0


def features(model: GgmlModel, batch: Batch) -> tuple[Mapping[str, object], ...]:
    """Return what tells each layer from others: its tensors, what is known of it, its place."""
    shape = model.language
    assert shape is not None
    suffixes: list[list[str]] = [[] for _ in shape.layers]
    for tensor in model.tensors:
        if is_of_layer(tensor):
            assert tensor.layer is not None
            suffixes[tensor.layer].append(tensor.name.split(".", 2)[-1])
    found: list[dict[str, object]] = []
    first: dict[object, int] = {}
    count = len(shape.layers)
    turns_keys = _is_turned(batch.cache_type, {layer.head_k for layer in shape.layers})
    turns_values = _is_turned(batch.type_of_values, {layer.head_v for layer in shape.layers})
    widest = max(_values(layer) for layer in shape.layers)
    for number, layer in enumerate(shape.layers):
        tensors = " ".join(sorted(suffixes[number]))
        words = "".join(
            letter
            for letter, is_so in (
                ("w", layer.is_windowed),
                ("s", layer.shares_cache),
                ("a", layer.has_attention),
                ("r", layer.has_state),
                ("k", BLOCKS[batch.cache_type][0] > 1),
                ("v", BLOCKS[batch.type_of_values][0] > 1),
                ("K", turns_keys),
                ("V", turns_values),
                ("p", not batch.has_flash and 0 < _values(layer) < widest),
            )
            if is_so
        )
        own: dict[str, object] = {"tensors": tensors, "words": words, "last": number == count - 1}
        for key in ("attention.head_count", "attention.head_count_kv", "feed_forward_length"):
            value = model.keys.get(key)
            if isinstance(value, tuple) and len(value) >= count:
                own["words"] = f"{own['words']} {int(bool(value[number]))}"
        kind = tensors, own["words"]
        own["first"] = number == 0
        own["first_of_kind"] = first.setdefault(kind, number) == number
        own["first_of_words"] = first.setdefault(own["words"], number) == number
        own["second"] = number == 1
        for period in (2, 3, 4, 5, 6, 8):
            own[f"of_{period}"] = number % period
        found.append(own)
    for number, one in enumerate(found):
        before = found[number - 1] if number else {}
        behind = found[number + 1] if number + 1 < count else {}
        one["before"] = f"{before.get('tensors')} {before.get('words')}"
        one["behind"] = f"{behind.get('tensors')} {behind.get('words')}"
    return tuple(found)
