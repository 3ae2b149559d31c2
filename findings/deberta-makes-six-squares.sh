#!/usr/bin/env bash
# transformers: DeBERTa makes six matrices of tokens x tokens for each head, where BERT makes none.
#
# Guess: an encoder of BERT's size takes BERT's memory, or without SDPA the scores and their softmax.
# Seen:  it has no SDPA, and its positions add to the scores twice (content to position, and back): each is a product
#        of its own, spread out by a gather whose result is as large, scaled, and added in a new tensor. Six squares
#        stand at the peak, 23 times what BERT takes in this small model. DeBERTa v3 large takes 3 GiB for 32 texts of
#        512 tokens in float32.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0
cat > "$folder/see.py" <<'PYTHON'
import weakref
from importlib.metadata import version

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import BertConfig, BertModel, DebertaV2Config, DebertaV2Model

TEXTS, TOKENS, HEADS = 4, 512, 4
print(*(f"{name} {version(name)}" for name in ("torch", "transformers")))
SMALL = {
    "vocab_size": 64, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": HEADS, "intermediate_size": 128,
}
V3 = {  # as the checkpoints of DeBERTa v3 say
    "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 256, "share_att_key": True,
    "norm_rel_ebd": "layer_norm", "position_biased_input": False, "type_vocab_size": 0, "max_relative_positions": -1,
}


class Counted(TorchDispatchMode):
    """Count the bytes of storages that appear while it is on, until they are freed."""

    def __init__(self):
        super().__init__()
        self.known, self.now, self.peak = {}, 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.note(tree_leaves((args, kwargs)), new=False)
        out = function(*args, **(kwargs or {}))
        self.note(tree_leaves(out), new=True)
        return out

    def note(self, values, new):
        for one in values:
            if isinstance(one, torch.Tensor) and one.untyped_storage()._cdata not in self.known:
                storage = one.untyped_storage()
                self.known[storage._cdata] = storage.nbytes() if new else 0
                self.now += self.known[storage._cdata]
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.freed, storage._cdata)

    def freed(self, which):
        self.now -= self.known.pop(which, 0)


for model, low, high in (
    (BertModel(BertConfig(**SMALL)), 0, 0.5), (DebertaV2Model(DebertaV2Config(**SMALL, **V3)), 5.5, 6.2),
):
    with torch.no_grad(), Counted() as counted:
        model.eval()(input_ids=torch.ones(TEXTS, TOKENS, dtype=torch.long))
    found = counted.peak / (TEXTS * HEADS * TOKENS * TOKENS * 4)
    print(f"{type(model).__name__} ({model.config._attn_implementation}): {found:.2f} squares of tokens for each head")
    assert low < found < high
print(f"16 heads, 32 texts: {6 * 32 * 16 * TOKENS * TOKENS * 4 / 2**30:.1f} GiB")
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
