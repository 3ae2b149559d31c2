#!/usr/bin/env bash
# transformers, torch: one token of padding costs tokens x tokens numbers for each sequence of the batch.
#
# Guess: padding is told by a row of tokens a sequence, and the causal half by a flag; nothing is square.
# Seen:  so it is with full attention while no token is padded. With one, in any sequence, a causal model makes
#        booleans of tokens x tokens for each sequence, and torch makes them numbers of the query's dtype again in each
#        layer. So does BERT, where all rows are the same. Windows (Gemma 3, ModernBERT) make one without padding,
#        too, and with it two. For eight prompts of 8,192 tokens in bfloat16, 0.5 GiB, and 1 GiB beside it at a time.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0
cat > "$folder/see.py" <<'PYTHON'
import weakref
from importlib.metadata import version

import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

BATCH, TOKENS = 4, 512
print(*(f"{name} {version(name)}" for name in ("torch", "transformers")))


class Squares(TorchDispatchMode):
    """Count the bytes of square tensors of the batch that live at once, by dtype."""

    def __init__(self):
        super().__init__()
        self.known, self.now, self.peak = {}, {}, {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for one in tree_leaves(out):
            if not isinstance(one, torch.Tensor) or one.shape[-2:] != (TOKENS, TOKENS):
                continue
            storage = one.untyped_storage()
            if storage._cdata in self.known:
                continue
            self.known[storage._cdata] = (one.dtype, storage.nbytes())
            self.now[one.dtype] = self.now.get(one.dtype, 0) + storage.nbytes()
            self.peak[one.dtype] = max(self.peak.get(one.dtype, 0), self.now[one.dtype])
            weakref.finalize(storage, self.freed, storage._cdata)
        return out

    def freed(self, which):
        dtype, size = self.known.pop(which)
        self.now[dtype] -= size


SMALL = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 6}
NONE = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None, "cls_token_id": None, "sep_token_id": None}
HEADS = {"num_key_value_heads": 4, "head_dim": 16}
KINDS = {  # masks of booleans without padding, and with
    "Llama": ("LlamaForCausalLM", {**HEADS, **NONE}, 0, 1),
    "Gemma3Text": ("Gemma3ForCausalLM", {**HEADS, "sliding_window": 64, "pad_token_id": 0}, 1, 2),
    "Bert": ("BertModel", {"max_position_embeddings": TOKENS, "pad_token_id": 0}, 0, 1),
    "ModernBert": ("ModernBertModel", {"pad_token_id": 0, "local_attention": 64}, 1, 2),
}
for name, (build, settings, *expected) in KINDS.items():
    config = getattr(transformers, f"{name}Config")(**SMALL, **settings)
    model = getattr(transformers, build)(config).to(torch.bfloat16).eval()
    for padded, masks in zip((0, 1), expected, strict=True):
        mask = torch.ones(BATCH, TOKENS, dtype=torch.long)
        mask[0, :padded] = 0
        with torch.no_grad(), Squares() as seen:
            model(torch.ones_like(mask), attention_mask=mask)
        square = BATCH * TOKENS * TOKENS
        booleans, floats = (seen.peak.get(one, 0) / square for one in (torch.bool, torch.bfloat16))
        print(f"{name}, {padded} padded: for each number of batch x tokens x tokens,",
              f"{booleans:.2f} bytes of booleans and {floats:.2f} of bfloat16")
        assert masks <= booleans < masks + 0.5 and floats == (2 if masks else 0)
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
