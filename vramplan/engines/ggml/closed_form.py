"""The compute buffer of builds before #23861: scratch memory for the largest graph of a prompt.

llama.cpp reserves the graph of one full batch and gives the memory of a tensor to the next one as
soon as nobody reads it any more, so a buffer is as large as the graph's fullest moment. For a
LLaMA-like model there are three candidates: attention (scores, unless flash attention never writes
them down), the feed-forward network (gate, up and their product), and the output (logits, which
were reserved for every token of the batch then). This module counts what is alive at each of them,
in closed form; later builds are `graph_buffer`'s.

It reproduces CUDA logs within 0.02 MiB (tests/unit/test_ggml_compute.py, test_logged.py): those of
``profiles/engine_logs`` from b2197 (February 2024) to b5050, all layers on the GPU or some, with
and without flash attention; 669.48 at 31 of 41 (ollama#7440, November 2024). The band reaches from
a twentieth below up to what today's CPU build holds for the same graph (`cpu_build_bytes`, fitted
to b11549).

Sources: llama.cpp, src/llama-context.cpp (sched_reserve), src/llama-graph.cpp (build_attn,
build_ffn), ggml/src/ggml-alloc.c, ggml/src/ggml-backend.cpp (op_offload); gpustack/gguf-parser-go,
file_estimate__llamacpp.go, for the same three moments.
"""

from __future__ import annotations

from vramplan.engines.ggml.build_rules import EngineRules
from vramplan.engines.ggml.cuda_facts import WORTH_COPYING
from vramplan.engines.ggml.weights import GgmlModel, Placement, TensorRole
from vramplan.model import Band
from vramplan.quick_dataclass import dataclass

_F32 = 4
#: token ids, positions, cache and output indices of a token, in the sizes that the graph declares
_INDEX_BYTES = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What a graph is reserved for."""

    tokens: int  # of the prompt, computed at once: n_ubatch, at most the context
    context: int  # tokens that one cache holds: a sequence's, or all sequences' where unified
    sequences: int
    cache_layer_bytes: int  # keys and values of one layer, the largest where they differ
    has_flash: bool
    layer_caches: tuple[int, ...] = ()  # of each layer, where they differ
    window_context: int = 0  # tokens that one cache of windowed layers holds
    cache_type: str = "f16"  # of keys, and of values unless they have their own
    value_type: str = ""
    is_cache_on_host: bool = False  # and states, wherever their layers are
    layer_states: tuple[int, ...] = ()  # recurrent states of each layer, where there are any
    is_unified: bool = False  # sequences share one cache
    pooling: str = ""  # how embeddings of tokens become one, where they are wanted
    outputs: int = 0  # results wanted of a batch; 0 for one a sequence
    has_all_outputs: bool = False  # a result for every token, not one a sequence
    may_pipeline: bool = True  # several cards may work on several batches at a time

    @property
    def streams(self) -> int:
        """Return how many caches there are."""
        return 1 if self.is_unified else self.sequences

    def cache_of_last(self, layers: int) -> int:
        """Return the bytes of keys and values of the last `layers` layers."""
        if self.layer_caches:
            return sum(self.layer_caches[len(self.layer_caches) - layers :])
        return layers * self.cache_layer_bytes

    def cache_on_gpu(self, layers: int) -> int:
        """Return the bytes of them that are on the GPU where the last `layers` are."""
        return 0 if self.is_cache_on_host else self.cache_of_last(layers)

    @property
    def type_of_values(self) -> str:
        """Return the element type of values."""
        return self.value_type or self.cache_type

    def cache_on_card(self, first: int, stop: int) -> int:
        """Return the bytes of keys and values on a card that has the layers from `first` on."""
        if self.is_cache_on_host:
            return 0
        if self.layer_caches:
            return sum(self.layer_caches[first:stop])
        return (stop - first) * self.cache_layer_bytes

    def states_of_last(self, layers: int) -> int:
        """Return the bytes of recurrent states of the last `layers` layers."""
        return sum(self.layer_states[len(self.layer_states) - layers :])

    def states_on_card(self, first: int, stop: int) -> int:
        """Return the bytes of recurrent states of the layers from `first` on, `stop` excluded.

        They are kept where caches are. Source: llama.cpp, src/llama-memory-recurrent.cpp (offload).
        """
        if self.is_cache_on_host:
            return 0
        return sum(self.layer_states[first:stop])


def reserved_tokens(batch: Batch) -> int:
    """Return the tokens of a batch that a graph is reserved for: as many of each sequence."""
    return -(-batch.tokens // batch.sequences) * batch.sequences


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeBuffers:
    """The compute buffers of the language model's graph: each card's, and the host's."""

    cards: tuple[Band, ...]
    host_bytes: int

    @property
    def gpu(self) -> Band:
        """Return what all cards hold together."""
        return sum(self.cards[1:], self.cards[0])


def is_pipeline(model: GgmlModel, batch: Batch, placement: Placement) -> bool:
    """Return whether several cards work on several batches at a time, which takes more memory.

    They do where all layers are on them. An engine that has no memory for it goes on without.
    Source: llama.cpp, src/llama-context.cpp (pipeline_parallel).
    """
    return (
        batch.may_pipeline
        and len(placement.cards) > 1
        and placement.on_gpu == model.total_layers
        and not batch.is_cache_on_host
        and not placement.moved
    )


def compute_buffers(
    model: GgmlModel, batch: Batch, placement: Placement, rules: EngineRules
) -> ComputeBuffers:
    """Return what the graph of `batch` takes on the GPU and in host memory.

    The host's figure leaves out the buffer of the logits and, where a build has it, of the inputs.
    """
    is_partial = placement.on_gpu < model.total_layers
    copies = rules.offloads_host_weights and placement.blocks_on_gpu < model.layers
    if not placement.on_gpu and not copies:
        return ComputeBuffers(cards=(Band.exactly(0),), host_bytes=cpu_build_bytes(model, batch))
    expected = max(
        _attention_bytes(model, batch, rules) + (batch.cache_layer_bytes if copies else 0),
        _feed_forward_bytes(model, batch, rules)
        + (_largest_bytes(model, TensorRole.BLOCK) if copies else 0),
        _output_bytes(model, batch, placement, rules),
    )
    extra = _largest_bytes(model, TensorRole.BLOCK) + batch.cache_layer_bytes if copies else 0
    high = max(expected, cpu_build_bytes(model, batch) + extra)
    if copies:  # a copy does not always fit into what was given back: two activations lie beside it
        high = max(high, expected + 2 * _hidden_bytes(model, batch))
    band = Band(low_bytes=expected * 19 // 20, expected_bytes=expected, high_bytes=high)
    return ComputeBuffers(cards=(band,), host_bytes=_host_bytes(model, batch, rules, is_partial))


def cpu_build_bytes(model: GgmlModel, batch: Batch) -> int:
    """Return the compute buffer of llama.cpp's CPU build b11549, which holds the whole graph.

    It holds the inputs too, which with a GPU stay on the host: embedded tokens, and the same again
    for prompts in which text and images are mixed.
    """
    hidden = _hidden_bytes(model, batch)
    indices = 0 if batch.has_flash else 8 * batch.tokens * _kv_width(model)
    inner = 3 * _wide_bytes(batch, model.feed_forward)
    fullest = max(_scores_bytes(model, batch) + hidden, inner)
    return _mask_bytes(batch) + 5 * hidden + indices + fullest + 32 * batch.tokens


def _attention_bytes(model: GgmlModel, batch: Batch, rules: EngineRules) -> int:
    """Scores and four activations: the residual, queries before and after rotation, the result.

    Queries that come with keys and values out of one matrix keep both alive.
    """
    states = 4 * _hidden_bytes(model, batch)
    if any(tensor.name.endswith("attn_qkv.weight") for tensor in model.tensors):
        states += 2 * _wide_bytes(batch, _kv_width(model))
    return _inputs_bytes(model, batch, rules) + _scores_bytes(model, batch) + states


def _feed_forward_bytes(model: GgmlModel, batch: Batch, rules: EngineRules) -> int:
    """Gate, up and since #14158 their product; residual and normed input, and a hole.

    The hole is what attention left and nothing here fits into; the scores leave a larger one.
    """
    inner = _wide_bytes(batch, model.feed_forward) * (3 if rules.fuses_swiglu else 2)
    states = (3 if batch.has_flash else 2) * _hidden_bytes(model, batch)
    return _inputs_bytes(model, batch, rules) + states + inner


def _output_bytes(model: GgmlModel, batch: Batch, placement: Placement, rules: EngineRules) -> int:
    """Logits and their input; a host's output matrix is copied when enough logits are computed."""
    rows = batch.sequences if rules.logits_per_sequence else batch.tokens
    copied = 0
    if not placement.output_on_gpu:
        if not rules.offloads_host_weights or rows < WORTH_COPYING:
            return 0
        copied = _largest_bytes(model, TensorRole.OUTPUT)
    return _hidden_bytes(model, batch) + rows * model.vocabulary * _F32 + copied


def _host_bytes(model: GgmlModel, batch: Batch, rules: EngineRules, is_partial: bool) -> int:
    """The embedded tokens, room for others in their place, and the mask.

    Before #6083 also the attention of host layers.
    """
    hidden = _hidden_bytes(model, batch)
    if rules.has_input_buffer:
        return _scores_bytes(model, batch) + 5 * hidden if is_partial else hidden
    widened = _mask_bytes(batch) if batch.has_flash and rules.has_wide_mask else 0
    masks = 2 if model.window else 1  # windowed layers have inputs of their own
    if rules.reserves_both_inputs:
        hidden *= 2
    return hidden + masks * (_inputs_bytes(model, batch, rules) + widened)


def _scores_bytes(model: GgmlModel, batch: Batch) -> int:
    return 0 if batch.has_flash else _wide_bytes(batch, model.heads * batch.context)


def _inputs_bytes(model: GgmlModel, batch: Batch, rules: EngineRules) -> int:
    """The mask and the indices; values are stored transposed without flash attention."""
    values = 8 * batch.tokens * _kv_width(model) if rules.indexes_values else 0
    return _mask_bytes(batch) + (0 if batch.has_flash else values) + batch.tokens * _INDEX_BYTES


def _mask_bytes(batch: Batch) -> int:
    """One number for each pair of tokens: f32, or f16 for flash attention."""
    return batch.tokens * batch.context * (2 if batch.has_flash else _F32)


def _hidden_bytes(model: GgmlModel, batch: Batch) -> int:
    return _wide_bytes(batch, model.embedding)


def _wide_bytes(batch: Batch, width: int) -> int:
    return batch.tokens * width * _F32


def _kv_width(model: GgmlModel) -> int:
    return model.kv_heads * model.head_size


def _largest_bytes(model: GgmlModel, role: TensorRole) -> int:
    """The largest matrix of a part: copies follow one another, so only one is there at a time."""
    return max(tensor.size_bytes for tensor in model.tensors if tensor.role is role)
