"""How long answers take: this build against another, in turns, as ratios of CPU time.

    python benchmarks/speed.py --old /path/to/old/python [--runs 5]

Whole processes, start-up included, `python -m vramplan` of either interpreter; a machine may be
shared, so the median of CPU seconds (user and system) is what counts. ``--without-core`` asks this
build to replay in Python. What takes the old build longer than --patience seconds is cut off there,
and its ratio is a lower bound.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile

COMMANDS = (
    "check sd15 llava:7b --card 8gb --card 12gb --json",
    "check llava-1.5-7b-hf --card 12gb --json",
    "check sd15 --image 768x768 --card 8gb --json",
    "check sdxl --card 12gb --json",
    "check sdxl --image 768x768 --card 12gb --json",
    "check sd15 --image 768x768 --batch 4 --card 8gb --card 12gb --json",
    "estimate vit-mae-base --set mode=train --batch 64 --json",
    "report -o fit.html",
    "check llava-1.5-7b-hf --new-tokens 1024 --card 12gb --json",
)


def seconds(words: list[str], environment: dict[str, str], patience: float) -> float | None:
    """Return the CPU seconds that a command takes; None where it was cut off."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        try:
            subprocess.run(
                words,
                cwd=folder,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
                timeout=patience,
            )
        except subprocess.TimeoutExpired:
            return None
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    """Print a row a command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--old", required=True, help="the interpreter that has the other build")
    parser.add_argument("--new", default=sys.executable)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--patience", type=float, default=120.0)
    parser.add_argument("--without-core", action="store_true")
    args = parser.parse_args()
    ours = {**os.environ, "VRAMPLAN_CORE": "off" if args.without_core else "on"}
    bare = statistics.median(
        seconds([args.new, "-c", "pass"], ours, 10) or 0 for _ in range(args.runs)
    )
    print(f"{'command':66} {'old':>8} {'new':>8} {'ratio':>7} {'x pass':>7}")
    for command in COMMANDS:
        taken: dict[str, list[float | None]] = {args.old: [], args.new: []}
        for turn in range(args.runs):
            for python, runs in taken.items():
                if turn and runs[0] is None:
                    continue  # it was cut off once: that is enough
                words = [python, "-m", "vramplan", *command.split()]
                runs.append(seconds(words, ours, args.patience))
        old, new = (
            None if None in runs else statistics.median(run for run in runs if run is not None)
            for runs in (taken[args.old], taken[args.new])
        )
        if new is None:
            print(f"{command:66} {'':8} more than {args.patience:.0f} s")
            continue
        least = args.patience if old is None else old
        shown = f">{least:.0f}" if old is None else f"{old:.2f}"
        sign = ">" if old is None else ""
        print(
            f"{command:66} {shown:>8} {new:8.2f} {sign + f'{least / new:.1f}':>7} {new / bare:7.1f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
