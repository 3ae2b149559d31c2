#!/usr/bin/env bash
# transformers: get_memory_footprint() of a quantised model is not what the model takes.
#
# Guess: after int8 or int4 quantisation it says the bytes of the quantised weights and their scales.
# Seen:  torchao 0.18 and optimum-quanto 0.2.7 quantise into tensors that call themselves bfloat16, and
#        the figure is that of the model before (quanto: 56 bytes more, for its own bookkeeping).
#        bitsandbytes 0.50's packed weights are counted, their scales (absmax) are not: they are
#        neither parameters nor buffers.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 torchao==0.18.0 \
    optimum-quanto==0.2.7 bitsandbytes==0.50.2
cat > "$folder/see.py" <<'PYTHON'
import warnings
from importlib.metadata import version

import torch
from transformers import LlamaConfig, LlamaForCausalLM

warnings.filterwarnings("ignore")
import bitsandbytes as bnb
from optimum.quanto import freeze, qint4, qint8, quantize
from torchao.quantization import Int8WeightOnlyConfig, quantize_

WIDE, HIGH = 512, 256
for name in ("transformers", "torchao", "optimum-quanto", "bitsandbytes"):
    print(name, version(name))


def model():
    config = LlamaConfig(
        vocab_size=256, hidden_size=HIGH, intermediate_size=WIDE, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4,
    )
    return LlamaForCausalLM(config).to(torch.bfloat16)


before = model().get_memory_footprint()
print("bfloat16:            ", before)

ours = model()
quantize_(ours, Int8WeightOnlyConfig())
weight = ours.model.layers[0].mlp.up_proj.weight
inner = [getattr(weight, name) for name in weight.__tensor_flatten__()[0]]
torchao = ours.get_memory_footprint()
print("torchao int8:        ", torchao, "· one weight of", weight.nbytes, "holds", sum(one.nbytes for one in inner))
assert torchao == before
assert weight.nbytes == 2 * WIDE * HIGH > 1.9 * sum(one.nbytes for one in inner)

for kind in (qint8, qint4):
    ours = model()
    quantize(ours, weights=kind, exclude="lm_head")
    freeze(ours)
    quanto = ours.get_memory_footprint()
    print(f"{kind}:       ", quanto)
    assert 0 <= quanto - before < 1024

ours = model()
scales = saved = 0
for layer in ours.model.layers:
    for name in ("gate_proj", "up_proj", "down_proj"):
        old = getattr(layer.mlp, name)
        new = bnb.nn.Linear4bit(
            old.in_features, old.out_features, bias=False, quant_type="nf4", compress_statistics=False
        )
        new.load_state_dict(old.state_dict())
        setattr(layer.mlp, name, new.to("cpu"))
        scales += new.weight.quant_state.absmax.nbytes
        saved += old.weight.nbytes - new.weight.nbytes
four = ours.get_memory_footprint()
print("bitsandbytes nf4:    ", four, "· scales beside it", scales)
assert four == before - saved
assert scales == 6 * WIDE * HIGH // 64 * 4
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/warnings" || { tail -5 "$folder/warnings"; exit 1; }
