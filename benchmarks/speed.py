"""How much CPU time whole commands take: an old build and a new one in turns, as ratios.

    python benchmarks/speed.py --old /path/to/old/python [--new /path/to/python] [--rounds 5]

Both interpreters have vramplan installed. Machines are shared and noisy, so the figures are medians
of the CPU time of whole processes, and the ratio is what counts. Nothing is measured that an old
build does not end within the limit of seconds: its figure is then a lower bound.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
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


def measure(command: list[str], folder: str, limit_seconds: float, *, core: bool = True) -> float:
    """Return the CPU seconds of one process, or the limit where it takes longer."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
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


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python benchmarks/speed.py")
    parser.add_argument("--old", required=True)
    parser.add_argument("--new", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=5)
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
        bases = [measure([args.new, "-c", "pass"], folder, args.limit) for _ in range(9)]
        starts = [
            measure([args.new, "-m", "vramplan", *START.split()], folder, args.limit)
            for _ in range(9)
        ]
        print(f"\n`{START}`: {median(starts) / median(bases):.1f} times `python -c pass`")
    return 0


if __name__ == "__main__":
    sys.exit(main())
