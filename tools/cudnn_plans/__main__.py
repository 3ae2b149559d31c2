"""Which workspaces cuDNN plans convolutions with, from torch on cards that are not there.

    python -m tools.cudnn_plans ask ANSWERS     ask for every convolution of the catalogue's tapes
    python -m tools.cudnn_plans write ANSWERS   profiles/witnessed from the answers in that folder
    python -m tools.cudnn_plans asked ANSWERS   the sizes that were asked, of all architectures
    python -m tools.cudnn_plans draw ANSWERS    hold the rules to sizes drawn at random
    python -m tools.cudnn_plans sample ANSWERS  some of the answers, for the tests

It needs the CUDA build of torch and cuDNN (python -m tools.witness_environment -- python -m
tools.cudnn_plans …), no GPU. Asking takes some minutes an architecture, and goes on where it
stopped: each answer is a line of a file in ANSWERS. The rules are what `estimate` uses where cuDNN
is not installed (`engines/torch/witnessed_plans.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.cudnn_plans import rules
from tools.cudnn_plans.cases import Case, answers_path, catalogue_cases, drawn_cases
from tools.docs.page import ROOT
from vramplan.catalog import load_catalog
from vramplan.catalog.shipped import profiles_dir
from vramplan.engines.torch.witness.pretended_gpu import PretendedGpu
from vramplan.engines.torch.witnessed_files import ASKED_FILE, CAPABILITIES, FOLDER, file_name
from vramplan.engines.torch.witnessed_plans import read_plans

#: one card of each architecture, with room for all of them
CARDS = ("t4", "a100-80gb", "a10", "rtx-4090", "h100-80gb", "b200", "rtx-5090")
#: for the tests: so many answers of each architecture
SAMPLE = ROOT / "tests" / "data" / "cudnn_answers.json"
SAMPLES = 100
DTYPES = ("fp16", "bf16", "fp32")

Question = tuple[Case, str]  # and the dtype


def ask(card: str, questions: Sequence[Question], path: Path) -> None:
    """Ask what is not in the file yet, and write each answer to its end.

    One process asks after the other: what came before may leave it too little room, and only a
    question that the next one fails at as well is given up.
    """
    known = {one for one, _ in read_answers(path)} if path.is_file() else set()
    ahead = [one for one in questions if one not in known]
    failed: Question | None = None
    while ahead:
        answered = _ask_some(card, ahead, path)
        ahead = ahead[answered:]
        if ahead and not answered and ahead[0] == failed:
            case, dtype = failed
            raise SystemExit(f"{card}: no answer to {case} in {dtype}")
        failed = ahead[0] if ahead else None


def _ask_some(card: str, questions: Sequence[Question], path: Path) -> int:
    """Ask in a process of its own until it ends; return how many it answered."""
    (chosen,) = load_catalog(()).card(card).candidates
    command = [sys.executable, "-m", "tools.cudnn_plans.asking"]
    with PretendedGpu(chosen) as gpu, path.open("a", encoding="utf-8") as file:
        child = subprocess.Popen(
            command,
            env=gpu.environment(os.environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # cuDNN says there what it misses of a driver
            text=True,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        with child:
            # a pipe holds less than all questions: they go as they are answered
            versions = child.stdout.readline()
            if not path.stat().st_size:
                file.write(versions)
            for count, (case, dtype) in enumerate(questions):
                child.stdin.write(json.dumps([*case, dtype]) + "\n")
                child.stdin.flush()
                answer = child.stdout.readline()
                if not answer:
                    return count
                file.write(json.dumps([*case, dtype, json.loads(answer)]) + "\n")
            child.stdin.close()
    return len(questions)


def read_answers(path: Path) -> list[tuple[Question, list[int] | None]]:
    """Return the questions of a file, each with the plans' workspaces in bytes; None for none."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        kind, batch, sides, dtype, plans = json.loads(line)
        found.append((((kind, batch, tuple(sides)), dtype), plans))
    return found


def _sample(folder: Path) -> str:
    """Return some answers of each architecture, the same for the same answers."""
    chance = random.Random(0)  # noqa: S311  # as it says
    parts = []
    for capability in CAPABILITIES:
        answers = [one for one in read_answers(answers_path(folder, capability)) if one[1]]
        rows = (
            json.dumps([*case, dtype, rules.tried_plans(plans or [])])
            for (case, dtype), plans in chance.sample(answers, SAMPLES)
        )
        parts.append(f'    "{capability}": [\n      ' + ",\n      ".join(rows) + "\n    ]")
    command = "python -m tools.cudnn_plans sample"
    joined = ",\n".join(parts)
    return f'{{\n  "command": "{command}",\n  "answers": {{\n{joined}\n  }}\n}}\n'


def _write_asked(folder: Path) -> str:
    """Write which sizes every architecture was asked about; return in words how many those are."""
    found: set[Case] | None = None
    for capability in CAPABILITIES:
        answers = read_answers(answers_path(folder, capability))
        asked = rules.asked_cases(read_plans(profiles_dir(), capability), answers)
        found = asked if found is None else found & asked
    assert found is not None
    target = profiles_dir() / FOLDER / ASKED_FILE
    target.write_text(rules.asked_text(found), encoding="utf-8", newline="\n")
    return f"{len(found)} sizes of {len({kind for kind, _, _ in found})} layers"


def main(arguments: Sequence[str]) -> int:
    """Ask, write, or hold the rules to what is drawn."""
    parser = argparse.ArgumentParser(prog="python -m tools.cudnn_plans", description=__doc__)
    parser.add_argument("what", choices=("ask", "write", "asked", "draw", "sample"))
    parser.add_argument("answers", type=Path)
    parser.add_argument("--card", action="append", default=[])
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(arguments)
    args.answers.mkdir(parents=True, exist_ok=True)
    if args.what == "sample":
        SAMPLE.write_text(_sample(args.answers), encoding="utf-8", newline="\n")
        return 0
    cards = load_catalog(())
    if args.what == "asked":
        print(_write_asked(args.answers))
        return 0
    for name in args.card or CARDS:
        capability = cards.card(name).candidates[0].compute_capability
        path = answers_path(args.answers, capability)
        if args.what == "ask":
            cases = sorted(catalogue_cases())
            ask(name, [(case, dtype) for dtype in DTYPES for case in cases], path)
        elif args.what == "write":
            versions = json.loads(path.read_text(encoding="utf-8").partition("\n")[0])
            target = profiles_dir() / FOLDER / file_name(capability)
            target.parent.mkdir(exist_ok=True)
            text, words = rules.plans_text(read_answers(path), versions, capability)
            target.write_text(text, encoding="utf-8", newline="\n")
            print(f"{capability}: {words}")
        else:
            drawn = answers_path(args.answers, f"{capability}-drawn-{args.seed}")
            chance = random.Random(args.seed)  # noqa: S311  # the same sizes every time
            ask(name, [(case, chance.choice(DTYPES)) for case in drawn_cases(chance)], drawn)
            plans = read_plans(profiles_dir(), capability)
            print(f"{capability}: {rules.score(plans, read_answers(drawn))}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
