#!/usr/bin/env bash
# transformers: adding one token to a model takes five embedding matrices beside the old one.
#
# Guess: resize_token_embeddings(n + 1) makes one matrix beside the old one and copies.
# Seen:  the new row is drawn from the mean and covariance of all the old ones (mean_resizing=True, the
#        default), in fp32 and on the model's device: a bfloat16 matrix is copied to fp32, and its
#        distance from the mean is a second fp32 copy. 40 MiB of shared embeddings want 200 MiB more;
#        with mean_resizing=False 40. With a head of its own the peak is six matrices instead of two.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0
cat > "$folder/see.py" <<'PYTHON'
import weakref

import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM

WORDS, WIDE = 160_000, 128
MATRIX = WORDS * WIDE * 2


class Counted(TorchDispatchMode):
    """Count the bytes of storages that appear while it is on, until they are freed."""

    def __init__(self):
        super().__init__()
        self.known, self.now, self.peak = {}, 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        for one in tree_leaves((args, kwargs)):
            if isinstance(one, torch.Tensor):
                self.known.setdefault(one.untyped_storage()._cdata, 0)
        out = function(*args, **(kwargs or {}))
        for one in tree_leaves(out):
            if isinstance(one, torch.Tensor) and one.untyped_storage()._cdata not in self.known:
                storage = one.untyped_storage()
                self.known[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.freed, storage._cdata)
        return out

    def freed(self, which):
        self.now -= self.known.pop(which, 0)


def peak(tied, **how):
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=WORDS, hidden_size=WIDE, intermediate_size=64, num_hidden_layers=1,
            num_attention_heads=1, tie_word_embeddings=tied,
        )
    ).to(torch.bfloat16)
    for weight in (model.model.embed_tokens.weight, model.lm_head.weight):
        weight.data.normal_()
    with Counted() as counted:
        model.resize_token_embeddings(WORDS + 1, **how)
    return counted.peak / MATRIX


print("transformers", transformers.__version__, "torch", torch.__version__)
for tied in (True, False):
    mean, plain = peak(tied), peak(tied, mean_resizing=False)
    print(f"{'shared' if tied else 'own   '} head: {mean:.2f} matrices more at the peak, without means {plain:.2f}")
    assert mean > (4.9 if tied else 5.9) and plain < (1.1 if tied else 2.1)
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
