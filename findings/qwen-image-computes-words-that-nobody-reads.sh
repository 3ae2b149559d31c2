#!/usr/bin/env bash
# diffusers: Qwen-Image encodes a prompt with a whole chat model, and nearly all that it makes are logits nobody reads.
#
# Guess: encoding a prompt computes hidden states; the text model's head is not used, and could be left out.
# Seen:  the pipeline calls Qwen2.5-VL as it stands: a row of 152,064 logits for every token, and a KV cache, both
#        thrown away with the result; the last hidden states are all that is taken. For the longest prompt (1,058
#        tokens) that is 307 MiB, and the head itself, 1,040 MiB, must be on the device for it, and so must the eyes,
#        which see nothing in text to image. LongCat-Image and Kandinsky 5 call the same model so; FLUX.2 calls
#        Mistral so, without the cache.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 diffusers==0.42.1
cat > "$folder/see.py" <<'PYTHON'
import weakref
from importlib.metadata import version

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, QwenImagePipeline
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import BatchEncoding, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

TOKENS, WORDS, WIDE = 200, 152_064, 256
print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "diffusers")))


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


def tokenizer(texts, **options):
    ids = torch.ones(len(texts), TOKENS, dtype=torch.long)
    return BatchEncoding({"input_ids": ids, "attention_mask": torch.ones_like(ids)})


text = {
    "vocab_size": WORDS, "hidden_size": WIDE, "intermediate_size": 256, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1,
}
eyes = {"depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": WIDE}
model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=eyes))
model = model.to(torch.bfloat16).eval()
given, seen = {}, []
model.register_forward_hook(lambda layer, args, out: given.update(out))
model.model.visual.register_forward_hook(lambda layer, args, out: seen.append(out))
pipeline = QwenImagePipeline(
    scheduler=FlowMatchEulerDiscreteScheduler(), vae=None, text_encoder=model, tokenizer=None, transformer=None
)
pipeline.tokenizer = tokenizer
with torch.no_grad(), Counted() as counted:
    embeddings, _ = pipeline.encode_prompt("words", device="cpu")
logits, cache = given["logits"], given["past_key_values"]
print(f"taken: {tuple(embeddings.shape)}; made: logits {tuple(logits.shape)}, a cache of {len(cache.layers)} layers;",
      f"logits are {logits.nbytes / counted.peak:.0%} of the peak")
assert logits.shape == (1, TOKENS, WORDS) and logits.nbytes > 0.9 * counted.peak and not seen
assert cache.get_seq_length() == TOKENS and embeddings.shape[-1] == WIDE
print(f"1,058 tokens: {1058 * WORDS * 2 / 2**20:,.0f} MiB of logits;",
      f"the head of 3,584: {WORDS * 3584 * 2 / 2**20:,.0f} MiB")
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
