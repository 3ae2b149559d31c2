#!/usr/bin/env bash
# transformers: SynthID's watermark takes a kilobyte for each word of the vocabulary and sequence, at every token.
#
# Guess: a watermark moves the probabilities: a few vectors as long as the vocabulary, 16 bytes a word.
# Seen:  each word is hashed with each of the keys, 30 as published, in int64, and several of those matrices stand
#        beside one another: 32 bytes for each word and key. At Gemma's 262,144 words that is 240 MiB a sequence, 7.5 GiB
#        for 32 sequences, for logits of 1 MiB each. A TopK before it changes nothing, for it is run over all words.
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
from transformers import SynthIDTextWatermarkingConfig, TopKLogitsWarper

print(*(f"{name} {version(name)}" for name in ("torch", "transformers")))


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


def taken(keys, batch, words, most=0):
    """Return the bytes for each word and sequence that one token's watermark takes."""
    config = SynthIDTextWatermarkingConfig(ngram_len=5, keys=list(range(1, keys + 1)))
    processor = config.construct_processor(words, torch.device("cpu"))
    ids, logits = torch.randint(0, words, (batch, 20)), torch.randn(batch, words)
    if most:
        logits = TopKLogitsWarper(most)(ids, logits)
    processor(ids, logits)
    ids = torch.cat([ids, ids[:, :1]], 1)
    with Counted() as counted:
        processor(ids, logits)
    return counted.peak / (batch * words)


for keys, batch, words, most in ((30, 1, 32_000, 0), (30, 4, 32_000, 0), (30, 1, 32_000, 50), (10, 1, 32_000, 0)):
    found = taken(keys, batch, words, most)
    print(f"{keys} keys, {batch} x {words:,} words, top {most or 'all'}: {found:.0f} bytes a word")
    assert 32 * keys <= found < 32 * keys + 16
for sequences in (1, 32):
    print(f"{sequences} x 262,144 words: {960 * sequences * 262_144 / 2**20:,.0f} MiB")
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
