"""What a language model's graph is made from: shapes, tensor names, and the batch it is for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerShape:
    """What one layer is made of; sizes in elements."""

    heads: int
    kv_heads: int
    head_k: int
    head_v: int
    feed_forward: int
    is_windowed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageShape:
    """A language model's shapes; `names` are its tensors' names."""

    architecture: str
    embedding: int
    vocabulary: int
    layers: tuple[LayerShape, ...]
    names: Collection[str]
    experts: int = 0
    experts_used: int = 0
    expert_feed_forward: int = 0
    shared_feed_forward: int = 0

    def has(self, layer: int, part: str) -> bool:
        """Return whether a layer has a tensor, such as ``attn_q.bias``."""
        return f"blk.{layer}.{part}" in self.names


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve:
    """The graph that is reserved: `tokens` of a batch, `outputs` rows of logits, caches' cells.

    `streams` is how many sequences have caches of their own; `window_cells` are the cells of layers
    that see a window only.
    """

    tokens: int
    outputs: int
    cells: int
    window_cells: int = 0
    streams: int = 1
    has_flash: bool = True
