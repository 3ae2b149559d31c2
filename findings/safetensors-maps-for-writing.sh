#!/usr/bin/env bash
# safetensors, torch: to read a file counts as asking for as much memory as the file is large.
#
# Guess: safe_open maps the file for reading; pages come and go with the page cache, so a file may be larger
#        than memory and swap, and one tensor of it costs that tensor.
# Seen:  for torch the whole file is mapped private and writable, which the kernel books as data: VmData grows by the
#        file's size at once, for names and shapes alone, and where it is beyond memory and swap (or a limit on
#        data, as a batch system sets) opening it fails: "unable to mmap". For numpy nothing is booked.
#        A model in shards loads where the same model in one file does not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 safetensors==0.8.0 numpy==2.4.6
cat > "$folder/see.py" <<'PYTHON'
import json
import resource
import struct
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import safe_open

print(*(f"{name} {version(name)}" for name in ("torch", "safetensors")))
GIB = 1 << 30
path = Path(sys.argv[1]) / "model.safetensors"


def write(tensors):
    """Write a file of tensors of a GiB whose data is a hole."""
    header = json.dumps(
        {
            f"w{number}": {"dtype": "F16", "shape": [GIB // 2], "data_offsets": [number * GIB, (number + 1) * GIB]}
            for number in range(tensors)
        }
    ).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + tensors * GIB)


def booked():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmData"))


def opened(framework):
    before = booked()
    with safe_open(path, framework) as file:
        return len(file.keys()), (booked() - before) / GIB


write(4)
for framework, expected in (("np", 0), ("pt", 4)):
    many, more = opened(framework)
    print(f"{framework}: {many} GiB opened, {more:.2f} GiB booked as data")
    assert abs(more - expected) < 0.1
_, hard = resource.getrlimit(resource.RLIMIT_DATA)
resource.setrlimit(resource.RLIMIT_DATA, (booked() + 3 * GIB, hard))
print("data limited to 3 GiB more:")
opened("np")
try:
    opened("pt")
except (RuntimeError, MemoryError) as error:
    print("  pt:", str(error).replace(str(path), "model.safetensors") or repr(error))
else:
    raise AssertionError("it was opened")
write(2)
print("  pt, a shard of 2 GiB:", opened("pt")[0], "tensors")
PYTHON
"$folder/venv/bin/python" "$folder/see.py" "$folder" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
