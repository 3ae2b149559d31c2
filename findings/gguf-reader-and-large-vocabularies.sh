#!/usr/bin/env bash
# gguf: GGUFReader takes a hundred times a header's size, and ten seconds, for a vocabulary of today.
#
# Guess: it maps the file, so a header of 8 MB (262,144 words, as Gemma's) costs about its size and a second.
# Seen:  each word becomes several numpy views: 800 MiB of memory and 11 seconds of CPU, whatever is asked of
#        the file afterwards, be it one number.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q gguf==0.19.0
cat > "$folder/see.py" <<'PYTHON'
import os
import resource
import sys
import time
from importlib.metadata import version

import gguf
import numpy

path, what = sys.argv[1:]
WORDS, MERGES = 262_144, 100_000
if what == "write":
    out = gguf.GGUFWriter(path, "llama")
    out.add_token_list([f"tok{number}" for number in range(WORDS)])
    out.add_token_scores([0.0] * WORDS)
    out.add_token_types([1] * WORDS)
    out.add_token_merges([f"a b{number}" for number in range(MERGES)])
    out.add_tensor("one", numpy.zeros(4, numpy.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    sys.exit()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.process_time()
gguf.GGUFReader(path)
taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
size = os.path.getsize(path)
print("gguf", version("gguf"), "·", size, "bytes of header:", taken >> 20, "MiB,",
      f"{time.process_time() - began:.1f} s of CPU")
assert taken > 50 * size
PYTHON
for what in write read; do "$folder/venv/bin/python" "$folder/see.py" "$folder/model.gguf" "$what"; done
