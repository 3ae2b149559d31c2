#!/usr/bin/env bash
# peft: to train the words of a model whose head shares them makes two copies of one matrix, and merging keeps both.
#
# Guess: modules_to_save=["embed_tokens", "lm_head"] makes one trained copy of a matrix that is one in the model.
# Seen:  one for each name, beside the frozen one: three, of which two are trained apart, each with a gradient and states.
#        Of Gemma 3 270M, whose words are 168 of its 268 million parameters, that is 640 MiB of copies and 2.5 GiB of
#        Adam's states in float32, not half of both. Merged, the model has a head of its own, 320 MiB more than
#        before. With ensure_weight_tying=True one copy is made and the head follows it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.2
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

WORDS, WIDE = 4096, 256
print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "peft")))
SMALL = {"vocab_size": WORDS, "hidden_size": WIDE, "intermediate_size": 64, "num_hidden_layers": 1,
         "num_attention_heads": 4, "num_key_value_heads": 4, "tie_word_embeddings": True}


def matrices(model, trained=False):
    """Return how many different matrices of words a model holds."""
    found = {
        one.data_ptr()
        for one in model.parameters()
        if one.shape == (WORDS, WIDE) and (one.requires_grad or not trained)
    }
    return len(found)


for asked, held, trained, merged in (
    ({}, 1, 0, 1),
    ({"modules_to_save": ["lm_head"]}, 2, 1, 2),
    ({"modules_to_save": ["embed_tokens", "lm_head"]}, 3, 2, 2),
    ({"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}, 2, 1, 1),
):
    base = LlamaForCausalLM(LlamaConfig(**SMALL))
    model = get_peft_model(base, LoraConfig(r=8, target_modules=["q_proj"], **asked))
    found = matrices(model), matrices(model, trained=True), matrices(model.merge_and_unload())
    print(f"{asked or 'LoRA alone'}: {found[0]} held, {found[1]} of them trained, {found[2]} when it is merged")
    assert found == (held, trained, merged)
one = 262_144 * 640
print(f"Gemma 3 270M: two copies {2 * 2 * one / 2**20:.0f} MiB in bfloat16, {2 * 8 * one / 2**30:.2f} GiB of states")
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
