#!/usr/bin/env bash
# thop: GPT-2 has 39 million parameters by its count, all of them in the head that is shared with the embedding.
#
# Guess: where a layer's operations are not known they count as none; its parameters are counted all the same.
# Seen:  parameters are counted by the rule for a layer's operations: none for what has no rule, without a word unless
#        it is asked. Those are embeddings, the Conv1D that GPT-2 is made of, RMSNorm, and parameters that stand
#        beside layers (a ViT's positions). GPT-2 loses all 12 blocks but their LayerNorms; its head, which it shares,
#        is what is left.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 thop==0.1.1.post2209072238
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import torch
import transformers
from thop import profile

print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "thop")))
KNOWN = (torch.nn.Linear, torch.nn.LayerNorm, torch.nn.Conv2d)
WORDS = torch.zeros(1, 4, dtype=torch.long)
LLAMA = transformers.LlamaConfig(  # the shapes of SmolLM2 135M, with a head of its own
    vocab_size=49_152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
    num_key_value_heads=3, tie_word_embeddings=False,
)
for kind, config, given in (
    ("GPT2LMHeadModel", transformers.GPT2Config(), WORDS), ("LlamaForCausalLM", LLAMA, WORDS),
    ("ViTModel", transformers.ViTConfig(num_hidden_layers=2), torch.zeros(1, 3, 224, 224)),
):
    with torch.device("meta"):
        model = getattr(transformers, kind)(config)
    model = model.to_empty(device="cpu").eval()
    model.tie_weights()
    true = sum(one.numel() for one in model.parameters())
    linear = [layer for layer in model.modules() if type(layer) in KNOWN]
    known = sum(one.numel() for layer in linear for one in layer.parameters())
    said = profile(model, inputs=(given,), verbose=False)[1]
    print(f"{kind}: {true:,} parameters; thop says {said:,.0f}")
    assert said == known < true
    if kind == "GPT2LMHeadModel":
        assert said < 0.32 * true and model.lm_head.weight.numel() > 0.99 * said
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
