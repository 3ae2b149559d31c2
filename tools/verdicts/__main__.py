"""Hold verdicts against torch itself, on cards that are not there and nearly too small.

    python -m tools.witness_environment -- python -m tools.verdicts       go on where it stopped
    python -m tools.verdicts --count 300 --minutes 30                     so many cases, so long
    python -m tools.verdicts --ours                                       ours anew, torch not asked

Each case is a pipeline at settings drawn by a seed, on a card of the catalogue (`drawing`). torch
runs it with all of the card's memory, with what the case's card has free, and with 1 % more and 1 %
less than the least that vramplan expects it to need; where that does not come out, with 3 %, and
with a MiB less, since success is not monotone. A case whose need has moved since it was asked
(--ours tells) is asked again. The results are a line a case in docs/torch_verdicts.jsonl;
tools/docs/accuracy.py counts them for docs/accuracy.md. A run takes a CPU second or two, no GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.verdicts.asking import ForkedRuns
from tools.verdicts.drawing import Case, draw_cases, estimate
from vramplan.ask.targets import make_jobs
from vramplan.catalog import Catalog, load_catalog
from vramplan.commands.result_file import write_file
from vramplan.engines.torch.estimate import settled
from vramplan.engines.torch.judge import judge_torch
from vramplan.engines.torch.pipeline import of_torch
from vramplan.errors import MeasurementError
from vramplan.model import Card, Estimate, Job
from vramplan.settings import format_setting, parse_setting

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "docs" / "torch_verdicts.jsonl"
SEED = 2027
COUNT = 300
#: on a card with so much no case is short of memory
_ROOM = 400 << 30
#: around the least that a run is expected to need, in per mille; then wider where that is not so
_AROUND, _WIDER = (1010, 990), (1030, 970)
#: less than any segment
_JUST_LESS = 1 << 20
#: a need that has moved by more since a case was asked: it is asked again
_MOVED = 0.0005

Line = dict[str, Any]


def ask(case: Case, runs: ForkedRuns) -> Line:
    """Return a case as torch has it, with ours beside it."""
    found = estimate(case.job, case.card)
    assert found is not None
    need = found.need.band.expected_bytes
    around = [need * share // 1000 for share in _AROUND]
    budgets = [_ROOM, case.budget_bytes, *around]
    answers = runs.run(case.job, case.card, budgets)
    more, less = answers[2:]
    wider = []
    if more["failure"] is not None:
        wider.append(need * _WIDER[0] // 1000)
    if less["failure"] is None:  # success is not monotone: a need is what every more is enough for
        wider += [need - _JUST_LESS, need * _WIDER[1] // 1000]
    if wider:
        answers += runs.run(case.job, case.card, wider)
    room, *tried = answers
    line = {
        "number": case.number,
        "pipeline": case.job.pipeline.name,
        "settings": {key: format_setting(key, value) for key, value in case.job.settings.items()},
        "card": case.card.name,
        "compute_capability": case.card.compute_capability,
        "is_near": case.is_near,
        "versions": {name: room["versions"][name] for name in ("torch", "cudnn")},
        "torch": {name: room[name] for name in ("allocated", "reserved")},
        "tried": [
            {"budget": budget, "failure": _where(answer)}
            for budget, answer in zip([*budgets[1:], *wider], tried, strict=True)
        ],
    }
    return with_ours(line, case.job, case.card, found)


def _where(answer: Line) -> str | None:
    failure = answer["failure"]
    return None if failure is None else f"{failure['phase']} {failure['component']}"


def with_ours(line: Line, job: Job, card: Card, found: Estimate) -> Line:
    """Return a case with ours as the estimate and the verdicts have it now."""
    band, peak = found.need.band, found.peak
    ours = {
        "allocated": peak.allocated_bytes,
        "reserved": peak.reserved_bytes,
        "need": [band.low_bytes, band.expected_bytes, band.high_bytes],
    }
    pipeline = settled(of_torch(job.pipeline), job.settings, card.compute_capability)
    tried = [
        {**one, "verdict": judge_torch(pipeline, job.settings, card, one["budget"]).kind.value}
        for one in line["tried"]
    ]
    return {**line, "ours": ours, "tried": tried}


def work_out(line: Line, catalog: Catalog) -> Line:
    """Return a case whose torch is known with ours worked out anew."""
    job, card = job_of(line, catalog)
    found = estimate(job, card)
    assert found is not None, f"{line['pipeline']}: its tape does not hold any more"
    return with_ours(line, job, card, found)


def job_of(line: Line, catalog: Catalog) -> tuple[Job, Card]:
    """Return the job and the card of a case."""
    given = {key: parse_setting(key, text) for key, text in line["settings"].items()}
    (job,) = make_jobs([line["pipeline"]], catalog, given)
    (card,) = catalog.card(line["card"]).candidates
    return job, card


def read_lines(path: Path = OUT) -> list[Line]:
    """Return the cases that are known, by their numbers."""
    if not path.exists():
        return []
    found = [json.loads(one) for one in path.read_text(encoding="utf-8").splitlines()]
    return sorted(found, key=lambda one: int(one["number"]))


def is_asked(line: Line) -> bool:
    """Return whether a case was tried around what it needs by the estimate as it is now."""
    need = line["ours"]["need"][1]
    tried = [one["budget"] / need for one in line["tried"]]
    return all(any(abs(one - share / 1000) < _MOVED for one in tried) for share in _AROUND)


def main(arguments: Sequence[str]) -> int:
    """Ask for every case that is not there yet, and write each down at once."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=COUNT, metavar="N")
    parser.add_argument("--pipeline", action="append", default=[], help="only cases of these")
    parser.add_argument("--minutes", type=float, default=10_000, metavar="N")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--ours", action="store_true")
    args = parser.parse_args(arguments)
    catalog = load_catalog(())
    known = read_lines(args.out)
    if args.ours:
        text = "".join(json.dumps(work_out(one, catalog)) + "\n" for one in known)
        write_file(args.out, text, replaces=True)
        return 0
    end = time.monotonic() + 60 * args.minutes
    kept = [one for one in known if is_asked(one)]
    write_file(args.out, "".join(json.dumps(one) + "\n" for one in kept), replaces=True)
    done = {one["number"] for one in kept}
    (any_card,) = catalog.card("rtx-4090").candidates
    with ForkedRuns(any_card) as runs, args.out.open("a", encoding="utf-8") as out:
        for case in draw_cases(catalog, SEED, args.count, skip=done, only=args.pipeline):
            if time.monotonic() > end:
                break
            try:
                line = ask(case, runs)
            except MeasurementError as problem:
                print(f"{case.number} on {case.card.name}: {problem}", file=sys.stderr)
                continue
            out.write(json.dumps(line) + "\n")
            out.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
