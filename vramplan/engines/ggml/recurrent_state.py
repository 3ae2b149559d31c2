"""The recurrent state: what layers without a cache, or beside one, keep of each sequence."""

from __future__ import annotations

from vramplan.engines.ggml.weights import GgmlModel

_F32 = 4

#: whatever the cache's type is
SOURCE = "counted: columns of the convolution and the state, f32, a layer and sequence each"


def layer_states(model: GgmlModel, sequences: int) -> tuple[int, ...]:
    """Return the bytes of each layer's states of all sequences; empty where no layer has one.

    Source: llama.cpp, src/llama-hparams.cpp (n_embd_r, n_embd_s), src/llama-memory-recurrent.cpp.
    """
    if model.language is None:
        return ()
    state = model.language.state
    if state is None:
        return tuple(kept * _F32 * sequences for kept in model.language.kept)
    each = (state.kept_columns + state.kept_state) * _F32 * sequences
    return tuple(each if layer.has_state else 0 for layer in model.language.layers)


def most_state_bytes(model: GgmlModel, sequences: int, layers: int) -> int:
    """Return the most that the last `layers` of a family that is not known may keep."""
    return 0 if model.language is None else model.language.most_kept * _F32 * sequences * layers
