"""Does a change of the code change what users see? Two builds, asked the same commands.

    python -m tools.behaviour freeze PYTHON before.json    # asks the vramplan of that interpreter
    python -m tools.behaviour compare before.json after.json

`freeze` runs every command in a folder of its own, with sparse model files in it, and keeps exit
code, the result's JSON and what was said on stderr. `compare` lists what differs; a field that is
only added is no difference. Needs what the tests need (gguf, numpy) for the model files.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tools.model_files import sparse_module

ROOT = Path(__file__).parents[1]

TORCH = ("sd15", "sd15-vae", "sdxl", "llava-1.5-7b-hf", "log-anomaly-ae", "denoising-ae")
GGML = ("llava:7b", "llava-v1.5-7b")
FILES = ("mistral", "gemma3", "qwen3moe", "deepseek2", "mamba2", "qwen35", "cohere2", "gpt-oss")

SMI = """\
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 570.124.04    Driver Version: 570.124.04    CUDA Version: 12.8     |
|-----------------------------------------+------------------------+----------------------+
|   0  NVIDIA GeForce RTX 3060        Off |   00000000:01:00.0  On |                  N/A |
|  0%   45C    P8             15W /  170W |    6133MiB /  12288MiB |      0%      Default |
+-----------------------------------------------------------------------------------------+
| Processes:                                                                              |
|    0   N/A  N/A      2345      G   /usr/lib/xorg/Xorg                              216MiB |
|    0   N/A  N/A      7777      C   python                                         5890MiB |
+-----------------------------------------------------------------------------------------+
"""

PROJECT = "targets: [sd15, 'llava:7b']\ncards: [8gb, rtx-3060-12gb]\nsettings: {batch: 2}\n"

OWN = """\
name: mine
title: My VAE
summary: of my own
runtime: diffusers
source: mine
tape: sd15-vae
components:
  - name: vae
    class: diffusers.AutoencoderKL
    config: {}
settings: {dtype: fp16, image: 512x512}
"""


def commands() -> Iterator[str]:
    """Yield the command lines, without the program's name."""
    yield "check"
    for name in (*TORCH, *GGML, "vit-mae-base"):
        yield f"check {name} --card 8gb --card 12gb --json"
        yield f"estimate {name} --json"
    for card in ("rtx-4090", "rtx-2080-ti", "6gb", "24gb", "10GiB", "gtx-1070", "h100-80gb"):
        yield f"check sd15 llava:7b --card {card} --json"
    yield "check sd15 llava:7b --together --card 12gb --json"
    yield "check sd15 llava:7b --together --card 4gb --json"
    yield "check sd15 --set offload=auto --card 4gb --json"
    yield "check sdxl --dtype fp16 --card 12gb --json"
    yield "check sdxl --set offload=model --card 8gb --json"
    yield "check sd15 --set platform=windows --card 4gb --json"
    yield "check sd15 --image 640x640 --batch 2 --card 8gb --json"
    yield "check sd15 --image 768x768 --set expandable_segments=on --card 6gb --json"
    yield "check log-anomaly-ae denoising-ae --set mode=train --card 8gb --json"
    yield "check llava:7b --kv-type q8_0 --context 16384 --card 8gb --margin 500MiB --json"
    yield "check llava:7b --set gpu_layers=20 --card 8gb --other 1GiB --json"
    yield "check llava:7b --set gpu_layers=all --card 4gb --fail-on oom --json"
    yield "check llava-v1.5-7b --set flash_attention=off --card 8gb --json"
    for name in FILES:
        yield f"check {name}.gguf --card 4gb --card 12gb --json"
        yield f"estimate {name}.gguf --json"
    yield "check mistral.gguf --mmproj llava.gguf --card 6gb --json"
    yield "check mistral.gguf --set engine=b8000 --context 2048 --card 6gb --json"
    yield "check gemma3.gguf --set parallel=4 --set swa_full=on --card 8gb --json"
    yield "check qwen3moe.gguf --cpu-moe 8 --set gpu_layers=all --card 6gb --json"
    yield "check mistral.gguf --context auto --card 8gb --json"
    yield "check folder --card 8gb --json"
    yield "estimate mistral.gguf --card rtx-3060-12gb --context 8192 --json"
    yield "estimate sd15 --set mode=img2img --json"
    yield "estimate sd15 --card rtx-3060-12gb"
    yield "estimate llava:7b --format markdown"
    yield "check sd15 --card 2gb"
    yield "check sdxl sd15 --card 8gb --format markdown"
    yield "compare sd15 --smi smi.txt --json"
    yield "compare llava-1.5-7b-hf --smi smi.txt"
    yield "report sd15 llava:7b --json"
    yield "catalog list --json"
    yield "catalog show sd15 --json"
    yield "catalog show llava:7b"
    yield "catalog validate own.yaml"
    yield "check own.yaml --card 8gb --json"
    yield "cards --json"
    yield "record llava:7b"
    yield "check nothing --card 8gb"
    yield "check sd15 --card potato"
    yield "check sd15 --set flavour=1 --card 8gb"
    yield "check sd15 --dtype fp17 --card 8gb"
    yield "check llava:7b --set offload=model --card 8gb"
    yield "check nothing.gguf --card 8gb"
    yield "check broken.gguf --card 8gb"
    yield "check llava.gguf --card 8gb"
    yield "compare sd15"
    yield "estimate sd15 --format html -o out/there.html"
    yield "profile sd15"


def furnish(folder: Path) -> None:
    """Write the files that the commands name."""
    sparse_gguf, families, projectors = map(
        sparse_module, ("sparse_gguf", "sparse_families", "sparse_projectors")
    )
    for name, model in families.families().items():
        if name in FILES:
            sparse_gguf.write(folder / f"{name}.gguf", model)
    mistral = sparse_gguf.dense_layers(sparse_gguf.language_model(layers=32, words=32000))
    sparse_gguf.write(folder / "mistral.gguf", mistral)
    sparse_gguf.write(folder / "llava.gguf", projectors.families()["llava"])
    (folder / "folder").mkdir()
    for name in ("mistral", "llava"):
        shown = "mmproj-llava" if name == "llava" else name
        (folder / "folder" / f"{shown}.gguf").symlink_to(folder / f"{name}.gguf")
    (folder / "broken.gguf").write_bytes(b"GGUF\x03\x00\x00\x00\xff")
    (folder / "smi.txt").write_text(SMI)
    (folder / "vramplan.yaml").write_text(PROJECT)
    (folder / "own.yaml").write_text(OWN)


def freeze(python: str, result: Path) -> None:
    """Ask the vramplan of an interpreter every command, and keep what it says."""
    answers: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text) / "behaviour"
        folder.mkdir()
        furnish(folder)
        environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
        for line in commands():
            words = [python, "-m", "vramplan", *shlex.split(line)]
            done = subprocess.run(
                words, cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
            shown = [part.replace(text, "") for part in (done.stdout, done.stderr)]
            is_json = "--json" in line and done.stdout.startswith("{")
            out = json.loads(shown[0])["result"] if is_json else shown[0]
            answers[line] = {"exit": done.returncode, "out": out, "err": shown[1]}
            print(f"{done.returncode} {line}", file=sys.stderr)
    result.write_text(json.dumps(answers, indent=1))


def differences(before: object, after: object, where: str = "") -> Iterator[str]:
    """Yield where two answers differ; what `after` has beyond `before` is no difference."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key in after:
                yield from differences(value, after[key], f"{where}.{key}")
            else:
                yield f"{where}.{key}: gone"
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for place, pair in enumerate(zip(before, after, strict=True)):
            yield from differences(*pair, f"{where}[{place}]")
    elif before != after:
        yield f"{where}: {before!r} -> {after!r}"


def compare(before: Path, after: Path) -> int:
    """Print what differs, and return how many commands do."""
    old, new = (json.loads(path.read_text()) for path in (before, after))
    changed = 0
    for line, answer in old.items():
        found = list(differences(answer, new.get(line)))
        changed += bool(found)
        if found:
            print(f"\n$ vramplan {line}")
            print("\n".join(text[:600] for text in found[:12]))
    print(f"\n{len(old) - changed} of {len(old)} commands answer alike")
    return changed


def main() -> int:
    """Freeze or compare."""
    parser = argparse.ArgumentParser(prog="python -m tools.behaviour", description=__doc__)
    parser.add_argument("what", choices=("freeze", "compare"))
    parser.add_argument("first")
    parser.add_argument("second", type=Path)
    args = parser.parse_args()
    if args.what == "freeze":
        freeze(args.first, args.second)
        return 0
    return int(compare(Path(args.first), args.second) > 0)


if __name__ == "__main__":
    sys.exit(main())
