#!/usr/bin/env bash
# accelerate: estimate-memory counts no output matrix, and training in half precision as half of full.
#
# Guess: the model counted is the one that the config's "architectures" names, and "Training using Adam" is the sum of
#        weights, gradients and states.
# Seen:  it is AutoModel's: a language model without its head. Of Llama 3.1 8B 7,505 of 8,030 million
#        parameters are counted, 2.0 GiB too few in float32. And "training" is the largest of the parts, not their sum:
#        for float16, where weights (4 bytes a parameter), gradients (6) and Adam's states (8) are
#        reckoned, 8 are printed: half of float32's 16, for a run that takes no less.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 accelerate==1.15.0
cat > "$folder/see.py" <<'PYTHON'
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

COMMIT = "0" * 40
CONFIG = json.dumps(  # Llama 3.1 8B
    {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128_256, "hidden_size": 4096,
        "intermediate_size": 14_336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "tie_word_embeddings": False, "dtype": "bfloat16",
    }
).encode()
MODEL = json.dumps(
    {"id": "some/llama", "sha": COMMIT, "library_name": "transformers", "tags": [], "siblings": [],
     "config": {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}}
).encode()


class Hub(BaseHTTPRequestHandler):
    """A hub of one model that has a config and no weights."""

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self):
        if self.path.startswith("/api/models/some/llama"):
            self.answer(MODEL)
        elif self.path.endswith("/config.json"):
            self.answer(CONFIG)
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


hub = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=hub.serve_forever, daemon=True).start()
print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "accelerate")))
said = subprocess.run(
    [sys.executable, "-m", "accelerate.commands.accelerate_cli", "estimate-memory", "some/llama",
     "--dtypes", "float32", "float16"],
    check=True, capture_output=True, text=True,
    env={**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": sys.argv[1], "no_proxy": "127.0.0.1"},
).stdout
print(said)
rows = {name: [float(one) for one in re.findall(r"([\d.]+) [GM]B", rest)] for name, rest in re.findall(r"(float\d+)(.*)", said)}
MATRIX = 128_256 * 4096
layer = 2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 14_336 * 4096 + 2 * 4096
whole = 2 * MATRIX + 32 * layer + 4096
assert whole == 8_030_261_248
for name, size in (("float32", 4), ("float16", 2)):
    _, total, training = rows[name]
    print(f"{name}: {whole * size / 2**30:.2f} GiB of weights, said {total}; training {training}")
    assert abs(total - (whole - MATRIX) * size / 2**30) < 0.02
assert abs(rows["float16"][2] / rows["float32"][2] - 0.5) < 0.01
PYTHON
"$folder/venv/bin/python" "$folder/see.py" "$folder/home" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
