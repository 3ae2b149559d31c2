#!/usr/bin/env bash
# transformers: gradient checkpointing that is on does nothing in the mode that from_pretrained leaves a model in.
#
# Guess: gradient_checkpointing_enable() is all it takes; it works wherever gradients are recorded, as in diffusers.
# Seen:  it works where the model is in train(), and from_pretrained returns it in eval(): a loop of one's own
#        keeps all activations, as without, although is_gradient_checkpointing says True and nothing is said. A Llama
#        of 8 layers keeps 13 times as much. A model of diffusers recomputes in both modes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 diffusers==0.42.1
cat > "$folder/see.py" <<'PYTHON'
import sys
from importlib.metadata import version

import torch
from diffusers import SanaTransformer2DModel
from transformers import LlamaConfig, LlamaForCausalLM, ViTConfig, ViTModel

print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "diffusers")))


def kept(model, inputs):
    """Return the bytes that autograd keeps of one call, parameters and buffers aside."""
    own = {one.untyped_storage()._cdata for one in [*model.parameters(), *model.buffers()]}
    found = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            found[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(**inputs)
    size = sum(one.nbytes() for one in found.values())
    del out
    return size


LLAMA = LlamaForCausalLM(
    LlamaConfig(vocab_size=64, hidden_size=256, intermediate_size=512, num_hidden_layers=8, num_attention_heads=4)
)
VIT = ViTModel(
    ViTConfig(hidden_size=128, intermediate_size=512, num_hidden_layers=8, num_attention_heads=4, image_size=128)
)
SANA = SanaTransformer2DModel(
    in_channels=4, out_channels=4, num_layers=8, num_attention_heads=4, attention_head_dim=16,
    num_cross_attention_heads=4, cross_attention_head_dim=16, cross_attention_dim=64, caption_channels=64, sample_size=16,
)
CASES = {
    "Llama": (LLAMA, {"input_ids": torch.zeros(1, 256, dtype=torch.long), "use_cache": False}),
    "ViT": (VIT, {"pixel_values": torch.zeros(1, 3, 128, 128)}),
    "Sana, of diffusers": (
        SANA,
        {"hidden_states": torch.zeros(1, 4, 16, 16), "encoder_hidden_states": torch.zeros(1, 8, 64),
         "timestep": torch.zeros(1)},
    ),
}
for name, (made, inputs) in CASES.items():
    made.save_pretrained(f"{sys.argv[1]}/{name}")
    model = type(made).from_pretrained(f"{sys.argv[1]}/{name}")
    assert not model.training
    plain = kept(model, inputs)
    if name.startswith("Sana"):
        model.enable_gradient_checkpointing()
    else:
        model.gradient_checkpointing_enable()
    assert model.is_gradient_checkpointing
    as_loaded, in_train = kept(model, inputs), kept(model.train(), inputs)
    print(f"{name}: {plain:,} bytes kept; checkpointing on, as loaded {as_loaded:,}, in train() {in_train:,}")
    assert in_train < plain / 3
    assert as_loaded < plain / 3 if name.startswith("Sana") else as_loaded == plain
PYTHON
"$folder/venv/bin/python" "$folder/see.py" "$folder/models" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
