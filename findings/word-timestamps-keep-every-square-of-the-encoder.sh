#!/usr/bin/env bash
# transformers: Whisper's word timestamps keep all of its encoder's scores, and leave it with plain attention for good.
#
# Guess: return_token_timestamps keeps how the few alignment heads look at the sound, for each token.
# Seen:  generate() asks for all attentions there are: frames x frames for each head of each layer of the encoder, which
#        nobody reads, stay until the end of a window, beside those of the decoder. For large-v3 that is 2.7 GiB in half
#        precision for 30 seconds of sound, times the batch. The model is set to eager attention for that and stays so:
#        the next call without timestamps takes 20 times what the same call took before.
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
from transformers import WhisperConfig, WhisperForConditionalGeneration

LAYERS, HEADS, FRAMES, WORDS = 3, 6, 1500, 512
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


ids = {"bos_token_id": 500, "eos_token_id": 500, "pad_token_id": 500, "decoder_start_token_id": 501}
sides = {f"{side}_{name}": number for side in ("encoder", "decoder")
         for name, number in {"layers": LAYERS, "attention_heads": HEADS, "ffn_dim": 96}.items()}
model = WhisperForConditionalGeneration(WhisperConfig(vocab_size=WORDS, d_model=96, **sides, **ids)).eval()
given = model.generation_config
given.is_multilingual, given.lang_to_id, given.task_to_id = True, {"<|en|>": 502}, {"transcribe": 503}
given.no_timestamps_token_id, given.alignment_heads = 504, [[1, 0]]
given.eos_token_id = given.suppress_tokens = given.begin_suppress_tokens = None
sound = torch.randn(1, 80, 2 * FRAMES)
square = HEADS * FRAMES * FRAMES * 4
taken = []
for asked in (False, True, False):
    with Counted() as counted:
        model.generate(sound, language="en", task="transcribe", max_new_tokens=20, return_token_timestamps=asked)
    taken.append(counted.peak)
    print(f"{'with' if asked else 'without'} timestamps: {counted.peak / 2**20:.1f} MiB,",
          f"{counted.peak / square:.2f} times one layer's scores; then {model.config._attn_implementation}")
before, during, after = taken
print(f"large-v3, 30 seconds in half precision: {32 * 20 * FRAMES**2 * 2 / 2**30:.2f} GiB of scores")
assert model.config._attn_implementation == "eager"
assert before < 0.15 * square and LAYERS * square < during < (LAYERS + 1.2) * square
assert 2 * square <= after < 2.2 * square and after > 15 * before
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
