#!/usr/bin/env bash
# ptflops, calflops: a model's parameters are those that are trained; a frozen one has none.
#
# Guess: the number of parameters that stands beside the operations is the model's.
# Seen:  both sum what asks for a gradient, and both call it the model's total. A model under LoRA has as many
#        parameters as its adapters (0.9 million for a Llama of 135 million); one made ready for inference by
#        requires_grad_(False) has 0, and as many bytes. The operations beside it are right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.0 \
    ptflops==0.7.5 calflops==0.3.2
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import torch
from calflops import calculate_flops
from peft import LoraConfig, get_peft_model
from ptflops import get_model_complexity_info
from transformers import LlamaConfig, LlamaForCausalLM

print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "ptflops", "calflops")))
WORDS = torch.zeros(1, 4, dtype=torch.long)
model = LlamaForCausalLM(  # the shapes of SmolLM2 135M
    LlamaConfig(
        vocab_size=49_152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True,
    )
).eval()


def said(model):
    """Return the operations and parameters that each of them says."""
    theirs = get_model_complexity_info(
        model, (4,), input_constructor=lambda shape: {"input_ids": WORDS}, as_strings=False,
        print_per_layer_stat=False, verbose=False,
    )
    others = calculate_flops(model, kwargs={"input_ids": WORDS}, print_results=False, output_as_string=False)
    return theirs, others[1:]


def show(name, model, expected):
    true = sum(one.numel() for one in model.parameters())
    (_, first), (_, second) = answers = said(model)
    print(f"{name}: {true:,} parameters; ptflops says {first:,}, calflops {second:,}")
    assert first == second == expected
    return [operations for operations, _ in answers]


whole = show("as it is made", model, sum(one.numel() for one in model.parameters()))
frozen = show("frozen", model.requires_grad_(False), 0)
assert frozen == whole
adapted = get_peft_model(model, LoraConfig(r=16, target_modules=["q_proj", "v_proj"]))
show("with LoRA", adapted, 30 * 16 * (576 + 576 + 576 + 192))
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
