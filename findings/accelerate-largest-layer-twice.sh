#!/usr/bin/env bash
# accelerate: a model that misses its GPU by a few bytes leaves far more than those bytes to the CPU.
#
# Guess: infer_auto_device_map (device_map="auto") fills the GPU, and moves as many layers as are too many.
# Seen:  of 205 MiB with a head of 62.5 MiB, all is on the GPU where all fits (buffers, a few hundred bytes, included). Offer 20 KB less,
#        and 72.5 MiB go to the CPU, since room for the largest layer is kept as soon as anything is
#        moved. Offer 111 MiB, more than half of the model, and the GPU gets nothing at all: the
#        embedding (62.5) and the room for one as large do not fit beside each other.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 accelerate==1.15.0
cat > "$folder/see.py" <<'PYTHON'
import accelerate
import torch
from accelerate import infer_auto_device_map
from transformers import LlamaConfig, LlamaForCausalLM

MIB = 1 << 20
with torch.device("meta"):
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32000, hidden_size=512, intermediate_size=1024, num_hidden_layers=8,
            num_attention_heads=8, num_key_value_heads=8,
        )
    )
every = sum(one.nbytes for one in model.parameters())
head = model.lm_head.weight.nbytes
print("accelerate", accelerate.__version__, "·", every / MIB, "MiB, the largest layer", head / MIB)


def on_the_cpu(offered):
    where = infer_auto_device_map(
        model, max_memory={0: offered, "cpu": 1 << 40}, no_split_module_classes=["LlamaDecoderLayer"]
    )
    moved = [name for name, device in where.items() if device == "cpu"]
    return sum(
        one.nbytes
        for name, one in model.named_parameters()
        if any(part == "" or name.startswith(part + ".") for part in moved)
    )


for missing, expected in ((-4096, 0), (20_000, 72.505859375), (head, 132.529296875), (head * 3 // 2, every / MIB)):
    found = on_the_cpu(every - missing) / MIB
    print(f"offered {(every - missing) / MIB:8.2f} MiB, {missing / MIB:7.3f} too few: {found:6.1f} MiB on the CPU")
    assert found == expected, found
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/warnings" || { tail -5 "$folder/warnings"; exit 1; }
