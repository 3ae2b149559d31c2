#!/usr/bin/env bash
# transformers: ten samples of one prompt compute the prompt ten times.
#
# Guess: the prompt is computed once, and its cache copied for each sample or beam.
# Seen:  generate() repeats the prompt's tokens before its first call: ten times the activations, and time, of the
#        prompt, with num_return_sequences and with num_beams. A cache has a method to repeat it: a prompt computed
#        once, and handed to generate() that way, takes what one sample does, and the copies of its cache.
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
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

print(*(f"{name} {version(name)}" for name in ("torch", "transformers")))
SAMPLES, TOKENS = 10, 512

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


torch.manual_seed(0)
config = LlamaConfig(
    hidden_size=256, intermediate_size=1024, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=1,
    vocab_size=256, pad_token_id=0, eos_token_id=None,
)
model = LlamaForCausalLM(config).eval()
seen = []
model.model.layers[0].register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape[:2])))
prompt = torch.ones(1, TOKENS, dtype=torch.long)


def run(name, **options):
    seen.clear()
    with torch.inference_mode(), Counted() as counted:
        out = model.generate(prompt, max_new_tokens=2, **options)
    print(f"{name}: called with {seen}, {counted.peak / 2**20:.1f} MiB at once")
    return len(out), counted.peak


_, one = run("one sample", do_sample=True)
assert seen == [(1, TOKENS), (1, 1)]
many, ten = run("ten samples", do_sample=True, num_return_sequences=SAMPLES)
assert many == SAMPLES and seen == [(SAMPLES, TOKENS), (SAMPLES, 1)]
_, beams = run("ten beams", num_beams=SAMPLES)
assert seen == [(SAMPLES, TOKENS), (SAMPLES, 1)]
assert 9 < ten / one < 10.5 and 9 < beams / one < 10.5
seen.clear()
with torch.inference_mode(), Counted() as counted:
    cache = DynamicCache(config=config)
    model(prompt[:, :-1], past_key_values=cache, logits_to_keep=1)
    cache.batch_repeat_interleave(SAMPLES)
    out = model.generate(prompt.repeat(SAMPLES, 1), past_key_values=cache, max_new_tokens=2, do_sample=True)
print(f"the cache repeated: called with {seen}, {counted.peak / 2**20:.1f} MiB at once")
assert len(out) == SAMPLES and seen == [(1, TOKENS - 1), (SAMPLES, 1), (SAMPLES, 1)]
assert counted.peak < 0.25 * ten
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
