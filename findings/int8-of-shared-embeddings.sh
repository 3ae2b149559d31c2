#!/usr/bin/env bash
# torchao, optimum-quanto: int8 makes a small model with a large shared vocabulary larger.
#
# Guess: weights in int8 take half of what they take in bfloat16, and a matrix that embedding and head
#        share is quantised once.
# Seen:  the head is replaced by an int8 matrix, the embedding stays in bfloat16 and no longer shares:
#        at the shapes of Gemma 3 270M (262,144 words of 640, shared; 268 million parameters) 511 MiB
#        become 578. So it goes wherever the embedding has more parameters than all the rest.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 torchao==0.18.0 optimum-quanto==0.2.7
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import torch
from optimum.quanto import freeze, qint8, quantize
from torchao.quantization import Int8WeightOnlyConfig, quantize_
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

MIB = 1 << 20
print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "torchao", "optimum-quanto")))


def parts(tensor):
    """Yield the plain tensors that a tensor of several is made of."""
    if hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from parts(getattr(tensor, name))
    else:
        yield tensor


def held(model):
    whole = {id(one): one for one in [*model.parameters(), *model.buffers()]}
    return sum(part.nbytes for one in whole.values() for part in parts(one))


def model():
    config = Gemma3TextConfig(
        vocab_size=262_144, hidden_size=640, intermediate_size=2048, num_hidden_layers=18,
        num_attention_heads=4, num_key_value_heads=1, head_dim=256,
    )
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("meta"):
        made = Gemma3ForCausalLM(config)
    made = made.to_empty(device="cpu")
    made.tie_weights()
    assert made.lm_head.weight is made.model.embed_tokens.weight
    return made


def with_torchao(made):
    quantize_(made, Int8WeightOnlyConfig())


def with_quanto(made):
    quantize(made, weights=qint8)
    freeze(made)


for name, act in (("torchao", with_torchao), ("quanto", with_quanto)):
    made = model()
    before = held(made)
    act(made)
    after = held(made)
    shared = made.lm_head.weight is made.model.embed_tokens.weight
    print(f"{name}: bfloat16 {before / MIB:.0f} MiB, int8 {after / MIB:.0f} MiB; still shared: {shared}")
    assert after > 1.1 * before and not shared
    assert made.model.embed_tokens.weight.dtype is torch.bfloat16
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
