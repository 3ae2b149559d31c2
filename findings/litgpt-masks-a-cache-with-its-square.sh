#!/usr/bin/env bash
# litgpt: a cache for n tokens has a mask of n x n beside it, and layers with windows keep all tokens.
#
# Guess: set_kv_cache makes keys and values, as many as a layer can use; who may see whom is worked out at each step.
# Seen:  a byte for each pair of tokens is written down with the cache, and for a moment two. At Llama 3.2 1B's own
#        131,072 tokens, which fixed_kv_cache_size="max_model_supported" asks for, that is 16 GiB, then 32, beside 8 GiB
#        of cache and a model of 2.8. Gemma 3's layers with a window of 1,024 are given all tokens: 8.5 GiB for the 4B
#        at 32,768, where the windows need 1.5.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 litgpt==0.5.9
cat > "$folder/see.py" <<'PYTHON'
import weakref
from importlib.metadata import version

import torch
from litgpt import GPT, Config
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

print(*(f"{name} {version(name)}" for name in ("torch", "litgpt")))


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


for name, tokens in (("Llama-3.2-1B", None), ("Gemma-3-4b-it", 32_768)):
    config = Config.from_name(name)
    with torch.device("meta"):
        model = GPT(config).to(torch.bfloat16)
        with Counted() as counted:
            model.set_kv_cache(1, max_seq_length=tokens)
    caches = [block.attn.kv_cache for block in model.transformer.h]
    taken = sum(one.nbytes for cache in caches for one in cache.buffers())
    long = caches[0].k.shape[2]
    mask = model.mask_cache
    print(f"{name}, {long:,} tokens: cache {taken / 2**30:.2f} GiB, mask {tuple(mask.shape)} {mask.dtype}",
          f"{mask.nbytes / 2**30:.2f} GiB, at most {(counted.peak - taken) / 2**30:.2f} beside the cache")
    assert long == (tokens or config.block_size) and mask.shape[-2:] == (long, long) and mask.element_size() == 1
    assert counted.peak - taken == 2 * mask.nbytes
    assert {cache.k.shape[2] for cache in caches} == {long}
    if config.sliding_window_indices:
        whole = sum(not one for one in config.sliding_window_indices)
        window = taken / len(caches) * (whole + (len(caches) - whole) * config.sliding_window_size / long)
        print(f"  {whole} of {len(caches)} layers see all of it; a cache as large as windows: {window / 2**30:.2f} GiB")
        assert taken > 5 * window
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
