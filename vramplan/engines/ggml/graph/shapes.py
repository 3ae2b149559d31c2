"""What a language model's graph is made from: shapes, tensor names, and the batch it is for.

All sizes are in elements.
"""

from __future__ import annotations

from collections.abc import Collection

from vramplan.engines.ggml.graph.tensor import ELEMENT_BYTES
from vramplan.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerShape:
    """What one layer is made of; a layer with a recurrent state may have no attention.

    `is_rotated`: positions turn its queries and keys, where they do in its family. `shares_cache`:
    it reads the cache of a layer before it.
    """

    heads: int
    kv_heads: int
    head_k: int
    head_v: int
    feed_forward: int
    is_windowed: bool = False
    is_rotated: bool = True
    shares_cache: bool = False
    has_attention: bool = True
    has_state: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertShape:
    """A model's experts: how many there are, and how many of them a token is sent to.

    `shared_feed_forward` is the width of those that every token is sent to. `gate` makes weights of
    logits, empty where the file does not say; a token looks at `groups_used` of the `groups`.
    """

    count: int
    used: int
    feed_forward: int
    shared_feed_forward: int = 0
    gate: str = ""
    normalises: bool = False
    is_scaled: bool = False
    groups: int = 1
    groups_used: int = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LatentShape:
    """Multi-head latent attention: keys and values unpacked of one row of `rank` a token.

    `rope` are the elements of a key that positions turn; `head_k` and `head_v` the sizes of heads
    when unpacked; `q_rank` that of the queries, 0 where they come of one matrix. `is_absorbed`: the
    row itself is the key, and is what the cache holds; else heads are unpacked and held.
    """

    rank: int
    rope: int
    head_k: int
    head_v: int
    q_rank: int = 0
    is_absorbed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StateShape:
    """The state that a recurrent layer keeps of a sequence, and the sizes it is computed with.

    `kind` is ``mamba2`` (Mamba 2), ``mamba`` (the first), ``shortconv`` (LFM2) or ``delta``
    (Qwen 3.5). `kernel` is the width of the convolution over time, of which one column less is
    kept.
    """

    kind: str
    kernel: int
    inner: int
    state: int = 0
    groups: int = 0
    heads: int = 0

    @property
    def convolved(self) -> int:
        """How many channels the convolution has."""
        return self.inner + 2 * self.groups * self.state

    @property
    def kept_columns(self) -> int:
        """The elements that the convolution keeps of a sequence."""
        return (self.kernel - 1) * self.convolved

    @property
    def kept_state(self) -> int:
        """The elements of the state proper."""
        return self.state * self.inner


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LanguageShape:
    """A language model's shapes; `names` are its tensors' names.

    `scaled` names what the file has a factor for: ``embedding``, ``residual``, ``logits``. The
    results of the first `deep_layers` have embeddings of images added. `holds_keys_only`: values
    are a part of the keys. `index` are the elements that an index of the tokens holds of each in
    every layer (`is_indexed`), `kept` those of a sequence's state in each layer, where no `state`
    tells them, and `most_kept` the most that the header's sizes would make of it. `is_encoder`: a
    text is computed at once, so nothing is cached. `is_sequential`: the feed-forward network reads
    what attention made, though not in its family. `has_sections`: a position has four numbers.
    """

    architecture: str
    embedding: int
    vocabulary: int
    layers: tuple[LayerShape, ...]
    names: Collection[str]
    experts: ExpertShape | None = None
    latent: LatentShape | None = None
    state: StateShape | None = None
    scaled: Collection[str] = ()
    deep_layers: int = 0
    holds_keys_only: bool = False
    index: int = 0
    is_indexed: bool = False
    is_encoder: bool = False
    is_sequential: bool = False
    has_sections: bool = False
    kept: tuple[int, ...] = ()
    most_kept: int = 0

    def has(self, layer: int, part: str) -> bool:
        """Return whether a layer has a tensor, such as ``attn_q.bias``."""
        return f"blk.{layer}.{part}" in self.names

    @property
    def holds_values(self) -> bool:
        """Whether caches hold values beside keys: else they are a part of the keys."""
        if self.holds_keys_only:
            return False
        return self.latent is None or not self.latent.is_absorbed


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reserve:
    """The graph that is reserved: `tokens` of a batch, `outputs` rows of logits, caches' cells.

    The tokens are of so many `sequences`, which each have a recurrent state; `streams` is how many
    caches they have: one each, or one for all. `window_cells` are the cells of layers that see a
    window only. `cache_type` is what caches hold of keys, and of values where these have no
    `value_type` of their own; `is_cache_on_host`: they are in host memory, whatever is on a card.
    `mixes_inputs`: a prompt may have text and images in one batch. `pooling`: how embeddings become
    one, where they are asked for.
    """

    tokens: int
    outputs: int
    cells: int
    window_cells: int = 0
    sequences: int = 1
    streams: int = 1
    has_flash: bool = True
    cache_type: str = "f16"
    value_type: str = ""
    is_cache_on_host: bool = False
    mixes_inputs: bool = True
    pooling: str = ""

    def type_of(self, kind: str) -> str:
        """Return what caches hold of keys (k) or values (v)."""
        return self.value_type if kind == "v" and self.value_type else self.cache_type

    def is_quantised(self, kind: str) -> bool:
        """Return whether caches hold keys or values in blocks of small numbers."""
        return self.type_of(kind) not in ELEMENT_BYTES

    def element_type(self, kind: str) -> str:
        """Return the type as which a cache is looked at; blocks are never copied out of it."""
        return "f16" if self.is_quantised(kind) else self.type_of(kind)
