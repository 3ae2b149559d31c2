#!/usr/bin/env bash
# transformers: a layer with a sliding window holds the whole prompt until the next token.
#
# Guess: after a prompt of 400 tokens, a layer with a window of 16 holds the last 16 (or 15) tokens.
# Seen:  its keys have the shape of 15 tokens and the storage of 400: the cache is a slice of what the
#        layer computed, and a slice keeps its storage alive. One more token, and the storage is that
#        of 16. So right after prefill, which is where long prompts peak, a window saves nothing.
#        And a cache made without the model's config (DynamicCache()) has no windows at all.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0
cat > "$folder/see.py" <<'PYTHON'
import torch
import transformers
from transformers import DynamicCache, Gemma3ForCausalLM, Gemma3TextConfig

config = Gemma3TextConfig(
    vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=6, num_attention_heads=2,
    num_key_value_heads=1, head_dim=16, sliding_window=16, max_position_embeddings=1024,
)
model = Gemma3ForCausalLM(config).eval()
print("transformers", transformers.__version__, config.layer_types)


def tokens(cache):
    """Return per layer how many tokens its keys show, and how many their storage has room for."""
    keys = [layer.keys for layer in cache.layers]
    return [(one.shape[2], one.untyped_storage().nbytes() // (one.element_size() * 16)) for one in keys]


def run(cache):
    for count in (400, 1):
        with torch.no_grad():
            model(torch.zeros(1, count, dtype=torch.long), past_key_values=cache, use_cache=True)
        yield tokens(cache)


after_prompt, after_token = run(DynamicCache(config=config))
print("shown, stored after a prompt of 400:", after_prompt)
print("shown, stored after one more token: ", after_token)
without, _ = run(DynamicCache())
print("without a config, after the prompt: ", without)
assert after_prompt == [(15, 400)] * 5 + [(400, 400)]
assert after_token == [(15, 16)] * 5 + [(401, 401)]
assert without == [(400, 400)] * 6
PYTHON
"$folder/venv/bin/python" "$folder/see.py"
