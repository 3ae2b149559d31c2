#!/usr/bin/env bash
# GPUtil, nvsmi: a card that shares the computer's memory is never free, and neither is one cut into instances.
#
# Guess: what nvidia-smi has no number for is taken for 0, or is an error.
# Seen:  "[N/A]" becomes a number that is not one, and every limit that it is compared with refuses it, also limits that
#        let everything pass: an idle GB10 (no memory of its own) and an idle H100 in MIG mode (no utilisation) are
#        listed by GPUtil and never available; includeNan lets the H100 in, and still not the GB10. nvsmi leaves both
#        out of its list without a word, and exits with 0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q gputil==1.4.0 nvsmi==0.4.2 setuptools==75.8.0
cat > "$folder/see.py" <<'PYTHON'
import contextlib
import io
import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import GPUtil
import nvsmi

print(*(f"{name} {version(name)}" for name in ("gputil", "nvsmi")))
# index, uuid, utilisation, memory in all, used, free, driver, name, serial, display active and mode, temperature
CARDS = {
    "RTX 4090": "0, GPU-1, 0, 24564, 500, 23632, 580.95, NVIDIA GeForce RTX 4090, [N/A], Disabled, Disabled, 40",
    "H100 in MIG mode": "0, GPU-1, [N/A], 81559, 87, 80994, 580.95, NVIDIA H100 80GB HBM3, 1, Disabled, Disabled, 40",
    "GB10": "0, GPU-1, 0, [N/A], [N/A], [N/A], 580.95, NVIDIA GB10, [N/A], Disabled, Disabled, 40",
}
EXPECTED = {"RTX 4090": ([0], [0], 1), "H100 in MIG mode": ([], [0], 0), "GB10": ([], [], 0)}
with tempfile.TemporaryDirectory() as folder:
    program = Path(folder) / "nvidia-smi"
    os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"
    for card, line in CARDS.items():
        program.write_text(f"#!/bin/sh\necho '{line}'\n")
        program.chmod(0o755)
        (seen,) = GPUtil.getGPUs()
        free = GPUtil.getAvailable(maxLoad=2, maxMemory=2)
        with_nan = GPUtil.getAvailable(maxLoad=2, maxMemory=2, includeNan=True)
        sys.argv = ["nvsmi", "ls"]
        with contextlib.redirect_stdout(io.StringIO()) as said:
            try:
                nvsmi._main()
            except SystemExit as end:
                assert not end.code
        listed = len(said.getvalue().strip().splitlines())
        print(f"{card}: GPUtil reads {seen.load:.0%} and {seen.memoryUtil:.0%}, available {free},",
              f"with includeNan {with_nan}; nvsmi ls lists {listed}")
        assert (free, with_nan, listed) == EXPECTED[card]
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
