#!/usr/bin/env bash
# transformers: the recurrent states of a bfloat16 model are fp32, and its convolutions' states hold one column more.
#
# Guess: a cache has the model's dtype, as keys and values do; a convolution of 4 needs the last 3 inputs.
# Seen:  in Mamba, Mamba 2, Bamba, Falcon H1 and Qwen3-Next, as computed in plain torch, the recurrent states are fp32
#        in a bfloat16 model, while keys and values beside them are bfloat16, and convolutions keep 4 columns. At the
#        shapes of Qwen3-Next 80B (36 layers, 32 heads of 128 x 128) 72 MiB a sequence instead of 36.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import torch
import transformers

print(*(f"{name} {version(name)}" for name in ("torch", "transformers")))
ANY = {"vocab_size": 64, "hidden_size": 64}
BOTH = {**ANY, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
HEADS = {"mamba_n_heads": 4, "mamba_d_head": 32, "mamba_d_state": 16, "mamba_n_groups": 1, "mamba_chunk_size": 32}
KINDS = {
    "Mamba": {**ANY, "num_hidden_layers": 1, "state_size": 16},
    "Mamba2": {
        **ANY, "num_hidden_layers": 1, "num_heads": 4, "head_dim": 32, "state_size": 16, "n_groups": 1,
        "chunk_size": 32,
    },
    "Bamba": {**BOTH, "num_hidden_layers": 2, "attn_layer_indices": [1], **HEADS},
    "FalconH1": {**BOTH, "num_hidden_layers": 1, "head_dim": 32, "mamba_d_ssm": 128, **HEADS},
    "Qwen3Next": {
        **BOTH, "num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"], "head_dim": 32,
        "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 32,
        "linear_value_head_dim": 32, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
    },
}


def found(layer, name):
    """Return a layer's tensors of a name, be they one or several."""
    one = getattr(layer, name, None)
    held = one.values() if isinstance(one, dict) else one if isinstance(one, (list, tuple)) else [one]
    return [tensor for tensor in held if isinstance(tensor, torch.Tensor)]


for name, settings in KINDS.items():
    config = getattr(transformers, f"{name}Config")(**settings)
    model = getattr(transformers, f"{name}ForCausalLM")(config).to(torch.bfloat16).eval()
    with torch.no_grad():
        out = model(torch.ones(1, 40, dtype=torch.long), use_cache=True)
    layers = (getattr(out, "cache_params", None) or out.past_key_values).layers
    states = [one for layer in layers for one in found(layer, "recurrent_states")]
    columns = [one for layer in layers for one in found(layer, "conv_states")]
    keys = [one for layer in layers for one in found(layer, "keys")]
    print(f"{name}: recurrent states {[str(one.dtype) for one in states]}, convolutions'",
          f"{[(str(one.dtype), one.shape[-1]) for one in columns]}, keys {[str(one.dtype) for one in keys]}")
    assert states and all(one.dtype is torch.float32 for one in states)
    assert columns and all(one.dtype is torch.bfloat16 and one.shape[-1] == 4 for one in columns)
    assert all(one.dtype is torch.bfloat16 for one in keys)
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
