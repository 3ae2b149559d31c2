#!/usr/bin/env bash
# transformers: on a GPU, generate() copies an expert's weights for every token that goes to it.
#
# Guess: a mixture of experts decodes from the weights where they lie; activations of one token a sequence
#        are next to nothing.
# Seen:  from the second token on, generate() changes the experts' implementation from grouped_mm to
#        batched_mm wherever the model is not on the CPU, and that gathers a copy of the expert's matrix for
#        each pair of sequence and expert, the same expert's as often as it is chosen. At the shapes of
#        Qwen3 30B-A3B (128 experts, 8 a token; 2,048 x 768) 16 sequences make 768 MiB of copies at once, as
#        much as the first matrices of all experts of a layer, and 64 sequences 3 GiB. grouped_mm makes none.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0
cat > "$folder/see.py" <<'PYTHON'
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

MIB = 1 << 20
print("torch", torch.__version__, "transformers", transformers.__version__)


class Gathered(TorchDispatchMode):
    """Keep the bytes of the largest tensor that indexing makes."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if function is torch.ops.aten.index.Tensor and out.ndim == 3:
            self.largest = max(self.largest, out.nbytes)
        return out


EXPERTS, CHOSEN = 128, 8
config = Qwen3MoeConfig(  # as many experts as Qwen3 30B-A3B's layers, an eighth as wide and high
    vocab_size=64, hidden_size=256, moe_intermediate_size=96, num_experts=EXPERTS, num_experts_per_tok=CHOSEN,
    num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=1, head_dim=64,
)
model = Qwen3MoeForCausalLM(config).to(torch.bfloat16).eval()
print("by default:", model.get_experts_implementation())
assert set(model.get_experts_implementation().values()) == {"grouped_mm"}
with model.to("meta")._optimize_model_for_decode():  # what generate() decodes in; a device that is not the CPU
    chosen = set(model.get_experts_implementation().values())
print("for decoding on another device than the CPU:", chosen)
assert chosen == {"batched_mm"}
model = Qwen3MoeForCausalLM(config).to(torch.bfloat16).eval()
layer = model.model.layers[0].mlp.experts.gate_up_proj.nbytes
for name in ("grouped_mm", "batched_mm"):
    model.set_experts_implementation(name)
    for sequences in (1, 16, 64):
        token = torch.arange(sequences)[:, None]
        with torch.no_grad(), Gathered() as seen:
            model(token, use_cache=False)
        share = seen.largest / layer
        at_size = share * 128 * 2 * 768 * 2048 * 2 / MIB
        print(f"{name}, {sequences:2} sequences: copies of {share:.4f} of the layer's first matrices,",
              f"{at_size:,.0f} MiB in Qwen3 30B-A3B")
        assert share == (sequences * CHOSEN / EXPERTS if name == "batched_mm" else 0), share
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
