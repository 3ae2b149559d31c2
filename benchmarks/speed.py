"""How much CPU time whole commands take: an old build and a new one in turns, as ratios.

    python benchmarks/speed.py --old /path/to/old/python [--new /path/to/python] [--rounds 5]
                               [--drawn 50] [--sweep 2016]

Both interpreters have vramplan installed. Machines are shared and noisy, so the figures are medians
of the CPU time of whole processes, and the ratio is what counts. Nothing is measured that an old
build does not end within the limit of seconds: its figure is then a lower bound. Nothing is
remembered between runs, but for what is said to be asked again. ``--drawn`` asks of each pipeline
so many settings that a stated seed draws, which takes an hour for each ten; ``--sweep`` sweeps so
many settings over fifty cards (`benchmarks/sweep.py`).
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

START = "check sd15 llava:7b --card 8gb --card 12gb --json"
COMMANDS = (
    "check llava-1.5-7b-hf --card 12gb",
    "check sd15 --image 768x768 --card 8gb",
    "check sdxl --card 12gb",
    "check sdxl --image 768x768 --card 12gb",
    "check sd15 --image 768x768 --batch 4 --card 8gb --card 12gb",
    "check llava-1.5-7b-hf --new-tokens 1024 --card 12gb",
    "estimate vit-mae-base --mode train --batch 64",
    "report -o fit.html",
    START,
)


SEED = 12
_CARDS = ("8gb", "12gb", "16gb", "24gb")
_DTYPES, _OFFLOADS = ("fp16", "fp32"), ("none", "model", "sequential")
#: settings that every build since 4815831 has: lists of values, and images by their sides
AXES: dict[str, dict[str, object]] = {
    "sd15": {"image": (256, 1024), "batch": (1, 2, 4), "steps": (1, 20, 50), "dtype": _DTYPES,
             "offload": _OFFLOADS},
    "sdxl": {"image": (512, 1280), "batch": (1, 2), "steps": (1, 20, 50), "dtype": _DTYPES,
             "offload": _OFFLOADS},
    "sd15-vae": {"image": (128, 1024), "batch": (1, 2, 4), "dtype": _DTYPES},
    "llava-1.5-7b-hf": {"prompt_tokens": (16, 100, 600), "new_tokens": (8, 64, 128),
                        "batch": (1, 2)},
    "llava:7b": {"context": (2048, 8192, 16384), "parallel": (1, 2)},
    "llava-v1.5-7b": {"context": (512, 2048, 4096), "gpu_layers": (10, 20, 33)},
    "vit-mae-base": {"mode": ("infer", "train"), "batch": (1, 16, 64)},
    "denoising-ae": {"mode": ("infer", "train"), "batch": (1, 64, 512)},
    "log-anomaly-ae": {"mode": ("infer", "train"), "batch": (1, 64, 512)},
}  # fmt: skip


def draw(name: str, count: int) -> list[str]:
    """Return commands about a pipeline at settings that the seed draws, an image in steps of 8."""
    dice = random.Random(f"{SEED} {name}")  # noqa: S311  # no secret
    commands = []
    for _ in range(count):
        words = f"check {name} --card {dice.choice(_CARDS)}"
        for key, values in AXES[name].items():
            if key == "image":
                low, high = values  # type: ignore[misc]  # a pair, for an image
                sides = (8 * dice.randint(low // 8, high // 8) for _ in range(2))
                words += f" --image {'x'.join(map(str, sides))}"
            else:
                words += f" --set {key}={dice.choice(values)}"  # type: ignore[call-overload]  # else a list
        commands.append(words)
    return commands


#: the shapes of Llama 3 70B: its words, and the ways to join them, are what a header is long by
LARGE_FILE = "llama-3-70b.gguf"
_LAYERS, _WIDE, _WORDS, _JOINS = 80, 8192, 128_256, 280_147


def write_large_file(folder: str) -> None:
    """Write a model file of 40 GB that is a header of 7 MB, and a hole."""

    def text(words: str) -> bytes:
        return struct.pack("<Q", len(words)) + words.encode()

    def texts(count: int, letters: int) -> bytes:
        words = (text("x" * (1 + number % letters)) for number in range(count))
        return struct.pack("<IQ", 8, count) + b"".join(words)

    numbers = {
        "block_count": _LAYERS, "context_length": 8192, "embedding_length": _WIDE,
        "feed_forward_length": 28672, "attention.head_count": 64, "attention.head_count_kv": 8,
    }  # fmt: skip
    keys = [text("general.architecture") + struct.pack("<I", 8) + text("llama")]
    keys += [text(f"llama.{key}") + struct.pack("<II", 4, one) for key, one in numbers.items()]
    keys.append(text("tokenizer.ggml.tokens") + struct.pack("<I", 9) + texts(_WORDS, 13))
    keys.append(text("tokenizer.ggml.merges") + struct.pack("<I", 9) + texts(_JOINS, 15))
    parts = {
        "attn_norm": (0, _WIDE), "attn_q": (12, _WIDE, _WIDE), "attn_k": (12, _WIDE, 1024),
        "attn_v": (14, _WIDE, 1024), "attn_output": (12, _WIDE, _WIDE), "ffn_norm": (0, _WIDE),
        "ffn_gate": (12, _WIDE, 28672), "ffn_up": (12, _WIDE, 28672),
        "ffn_down": (14, 28672, _WIDE),
    }  # fmt: skip
    tensors = {"token_embd.weight": (12, _WIDE, _WORDS), "output.weight": (14, _WIDE, _WORDS)}
    tensors["output_norm.weight"] = (0, _WIDE)
    for layer in range(_LAYERS):
        tensors |= {f"blk.{layer}.{part}.weight": one for part, one in parts.items()}
    data = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(keys)
    for name, (kind, *shape) in tensors.items():
        data += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, 0)
    path = Path(folder) / LARGE_FILE
    path.write_bytes(data)
    with path.open("r+b") as file:
        file.truncate(len(data) + (40 << 30))
    os.utime(path, (1_700_000_000, 1_700_000_000))  # a file of just now may still be written


def measure(
    command: list[str],
    folder: str,
    limit_seconds: float,
    *,
    core: bool = True,
    cache: str = "off",
) -> float:
    """Return the CPU seconds of one process, or the limit where it takes longer."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment["VRAMPLAN_CACHE"] = cache
    if not core:
        environment["VRAMPLAN_CORE"] = "off"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=limit_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return limit_seconds
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _starts(args: argparse.Namespace, words: str, folder: str) -> str:
    """Return how many times Python's own start a command takes: with nothing known, and again."""
    command = [str(Path(args.new).with_name("vramplan")), *words.split()]
    took: dict[str, list[float]] = {"base": [], "first": [], "again": []}
    for number in range(4 * args.rounds):
        base = measure([args.new, "-c", "pass"], folder, args.limit)
        first = measure(command, folder, args.limit)
        again = measure(command, folder, args.limit, cache=str(Path(folder) / "kept"))
        if number:  # the first round warms, and remembers
            for name, seconds in (("base", base), ("first", first), ("again", again)):
                took[name].append(seconds)
    base = median(took["base"])
    return " | ".join(f"{median(took[name]) / base:.1f}" for name in ("first", "again"))


def _drawn(args: argparse.Namespace, folder: str) -> None:
    """Print how many times less settings take that nobody chose: the median, and the worst."""
    print(f"\n| {args.drawn} settings drawn by seed {SEED} | median, times less | worst |")
    print("|---|--:|--:|")
    every: list[float] = []
    for name in AXES:
        ratios = []
        for words in draw(name, args.drawn):
            took = [
                measure([python, "-m", "vramplan", *words.split()], folder, args.limit)
                for python in (args.old, args.new)
            ]
            ratios.append(took[0] / took[1])
        every += ratios
        print(f"| `{name}` | {median(ratios):.1f} | {min(ratios):.1f} |", flush=True)
    print(f"| all | {median(every):.1f} | {min(every):.1f} |", flush=True)


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python benchmarks/speed.py")
    parser.add_argument("--old", required=True)
    parser.add_argument("--new", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--drawn", type=int, default=0, help="settings a pipeline")
    parser.add_argument("--sweep", type=int, default=0, help="settings in all, on fifty cards")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds of one command")
    args = parser.parse_args()
    print("| what | old, s | new, s | times less | without the core, s | times less |")
    print("|---|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        for words in COMMANDS:
            took: dict[str, list[float]] = {"old": [], "new": [], "bare": []}
            for number in range(args.rounds + 1):
                for build, python in (("old", args.old), ("new", args.new), ("bare", args.new)):
                    if took[build] and took[build][-1] >= 10 and number > 1:
                        continue  # once is enough for what takes that long
                    command = [python, "-m", "vramplan", *words.split()]
                    seconds = measure(command, folder, args.limit, core=build != "bare")
                    if number:  # the first round warms the file cache and the byte code
                        took[build].append(seconds)
            old, new, bare = (median(took[build]) for build in ("old", "new", "bare"))
            least = "> " if old >= args.limit else ""
            print(
                f"| `{words}` | {least}{old:.2f} | {new:.3f} | {old / new:.1f} "
                f"| {bare:.2f} | {old / bare:.1f} |",
                flush=True,
            )
        write_large_file(folder)
        print("\n| against `python -c pass` | first, times | asked again, times |")
        print("|---|--:|--:|")
        for words in (START, f"estimate {LARGE_FILE}"):
            print(f"| `{words}` | {_starts(args, words, folder)} |", flush=True)
        if args.drawn:
            _drawn(args, folder)
    if args.sweep:
        script = str(Path(__file__).with_name("sweep.py"))
        print(flush=True)
        subprocess.run([args.new, script, "--settings", str(args.sweep)], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
