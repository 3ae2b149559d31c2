"""How fast a grid of verdicts is, how much memory it takes, and whether it says what `check` says.

    python benchmarks/sweep.py [--settings 2016] [--cards 50] [--jobs 2] [--verify 1000]

The settings are spread evenly over nine pipelines, those of `AXES`. ``--verify`` draws rows by a
stated seed and asks `vramplan.check` about each of them, field by field.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import vramplan

SEED = 12
#: of each pipeline, the axis that is made as long as wanted (first, step) and the others
AXES: dict[str, tuple[str, int, int, dict[str, list[object]]]] = {
    "sd15": ("image", 256, 8, {"batch": [1, 2], "dtype": ["fp16", "bf16"], "steps": [20, 50]}),
    "sdxl": ("image", 512, 8, {"batch": [1, 2], "offload": ["none", "model"], "steps": [20, 50]}),
    "sd15-vae": ("image", 128, 8, {"mode": ["both", "encode"], "batch": [1, 2]}),
    "llava-1.5-7b-hf": ("prompt_tokens", 16, 16, {"new_tokens": [64, 256], "batch": [1, 2]}),
    "llava:7b": ("context", 1024, 64, {"kv_type": ["f16", "q8_0"]}),
    "llava-v1.5-7b": ("context", 256, 8, {"parallel": [1, 2]}),
    "vit-mae-base": ("batch", 1, 1, {"mode": ["infer", "train"]}),
    "denoising-ae": ("batch", 1, 1, {"mode": ["infer", "train"], "image": [64, 128]}),
    "log-anomaly-ae": ("batch", 8, 8, {"mode": ["infer", "train"]}),
}


def grid(settings: int, cards: int) -> dict[str, object]:
    """Return a sweep's file of about so many settings, as many of each pipeline."""
    names = json.loads(vramplan_words("cards", "--json"))["result"]["cards"]
    known = [card["name"] for card in names if card["class_gib"] >= 4]
    chosen = [known[place * len(known) // cards] for place in range(cards)]
    grids = []
    for name, (key, first, step, others) in AXES.items():
        count = settings // len(AXES)
        for values in others.values():
            count = -(-count // len(values))
        axis = f"{first}..{first + (count - 1) * step}:{step}"
        grids.append({"targets": [name], "settings": {**others, key: axis}})
    return {"cards": chosen, "grids": grids}


def vramplan_words(*words: str) -> str:
    """Return what a command of ours prints."""
    command = [sys.executable, "-m", "vramplan", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def verify(rows: list[dict[str, str]], count: int) -> int:
    """Return how many of `count` rows, drawn at random, say else than `check`; print them."""
    wrong = 0
    settings = list(rows[0])[list(rows[0]).index("problem") + 1 :]
    for row in random.Random(SEED).sample(rows, min(count, len(rows))):  # noqa: S311  # no secret
        given = {key: row[key] for key in settings if row[key]}
        try:
            (one,) = vramplan.check(row["pipeline"], card=row["card"], **given).verdicts
        except vramplan.VramplanError as problem:
            wrong += row["problem"] != str(problem)
            continue
        layers = one.layers
        expected = {
            "verdict": one.kind.value,
            "need_low_bytes": one.need.low_bytes,
            "need_bytes": one.need.expected_bytes,
            "need_high_bytes": one.need.high_bytes,
            "budget_bytes": one.budget_bytes,
            "headroom_bytes": one.headroom_bytes,
            "offload_risk": one.offload_risk,
            "peak_phase": one.peak_phase,
            "peak_component": one.peak_component,
            "judged_as": one.judged_as,
            "layers_total": "" if layers is None else layers.total,
            "layers_on_gpu": "" if layers is None else layers.on_gpu,
            "context_tokens": "" if one.context is None else one.context,
            "problem": "",
        }
        differing = {key: (row[key], str(v)) for key, v in expected.items() if row[key] != str(v)}
        if differing:
            wrong += 1
            print(row["pipeline"], row["card"], given, differing)
    return wrong


def main() -> None:
    """Sweep, print rows a second and memory, and hold rows against `check`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", type=int, default=2016)
    parser.add_argument("--cards", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--verify", type=int, default=0)
    args = parser.parse_args()
    os.environ["VRAMPLAN_CACHE"] = "off"  # what an earlier sweep found is no speed
    with tempfile.TemporaryDirectory() as folder:
        asked, written = Path(folder) / "grid.yaml", Path(folder) / "grid.csv"
        asked.write_text(json.dumps(grid(args.settings, args.cards)), encoding="utf-8")
        words = ["sweep", str(asked), "--jobs", str(args.jobs), "-q", "-o", str(written)]
        before, began_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        vramplan_words(*words)
        wall_s = time.monotonic() - began_s
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        with written.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        combinations = len(rows) // args.cards
        print(f"{len(rows):,} verdicts, {combinations:,} settings, {args.cards} cards, "
              f"{args.jobs} processes: {wall_s:.1f} s, {cpu_s:.1f} CPU-s, "
              f"{len(rows) / wall_s:,.0f} rows/s, largest process {after.ru_maxrss // 1024} MiB, "
              f"{sum(bool(row['problem']) for row in rows)} without a verdict")  # fmt: skip
        if args.verify:
            wrong = verify(rows, args.verify)
            print(f"{args.verify:,} drawn by seed {SEED}: {wrong} differ from check")


if __name__ == "__main__":
    main()
