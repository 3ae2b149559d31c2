#!/usr/bin/env bash
# deepspeed, torch: the memory estimator counts a single tensor of a model on the meta device.
#
# Guess: estimate_zero2_model_states_mem_needs_all_live(model) needs shapes alone, so a model too large for this
#        machine is made on "meta" for it; a wrong answer would be 0 or an error.
# Seen:  parameters are told apart by their address, and on meta each has address 0, so the last one is
#        counted for all. Llama 3.1 8B is said to have 525 million parameters (its head) and to train in 9.8 GB;
#        it has 8,030 million, 150 GB by the same rule. Nothing says that anything is wrong. ZeRO-3's estimator
#        does the same.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 wheel==0.45.1 setuptools==80.9.0 ninja==1.13.0
DS_BUILD_OPS=0 "$folder/venv/bin/pip" install -q --no-build-isolation deepspeed==0.19.8 > "$folder/said" 2>&1 ||
    { cat "$folder/said" >&2; exit 1; }
cat > "$folder/see.py" <<'PYTHON'
import contextlib
import io
import re
from importlib.metadata import version

import torch
from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs_all_live as stage_3
from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs_all_live as stage_2
from transformers import LlamaConfig, LlamaForCausalLM

print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "deepspeed")))


def said(estimate, model):
    """Return the millions of parameters that an estimate prints, and its last line: nothing is offloaded."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        estimate(model, num_gpus_per_node=1, num_nodes=1)
    text = printed.getvalue()
    return int(re.search(r"with (\d+)M total", text)[1]), float(re.findall(r"\| +([\d.]+)GB \|", text)[-1])


small = LlamaConfig(
    vocab_size=32_000, hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4
)
llama = LlamaConfig(  # Llama 3.1 8B
    vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32,
    num_attention_heads=32, num_key_value_heads=8,
)
real = LlamaForCausalLM(small)
with torch.device("meta"):
    meta, large = LlamaForCausalLM(small), LlamaForCausalLM(llama)
for name, estimate in (("ZeRO-2", stage_2), ("ZeRO-3", stage_3)):
    for kind, model in (("real", real), ("meta", meta), ("meta, Llama 3.1 8B", large)):
        true = sum(one.numel() for one in model.parameters())
        millions, gigabytes = said(estimate, model)
        print(f"{name}, {kind}: {true / 1e6:,.0f} million parameters; said: {millions} million, {gigabytes} GB a GPU")
        counted = true if model is real else model.lm_head.weight.numel()
        assert millions == counted // 1_000_000
        if model is large and estimate is stage_2:
            whole = gigabytes * true / counted
            print(f"  by its own rule for all of them: {whole:.0f} GB")
            assert gigabytes < 10 and 145 < whole < 155
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
