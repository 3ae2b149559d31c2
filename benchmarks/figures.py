"""Print every figure vramplan has to reach, beside what it is held to.

    python benchmarks/figures.py              all of it: some minutes; needs the extra `gpu`
    python benchmarks/figures.py --quick      without the recording, and without running tests

Figures are worked out here from the tapes and from `profiles/published.yaml`; where a property is
held by tests alone, the tests are run and counted. Start-up is a ratio to an empty Python, a median
of pairs, because milliseconds are the machine's; a replay's are processor time, so that neighbours
do not count. Exits with 1 where a figure is not reached.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vramplan.ask.library import open_target
from vramplan.ask.published import figure_of
from vramplan.catalog import load_pipeline_file, profiles_dir
from vramplan.catalog.published import Claim
from vramplan.catalog.search import load_published
from vramplan.engines.door import open_entry
from vramplan.engines.torch.least_limit import find_least_limit
from vramplan.engines.torch.pipeline import TorchPipeline, of_torch
from vramplan.engines.torch.replayed import conditions_at
from vramplan.engines.torch.tape.allocator import CachingAllocator
from vramplan.engines.torch.tape.format import read_tape
from vramplan.engines.torch.tape.rehearse import rehearse
from vramplan.engines.torch.tape.replay import Replay
from vramplan.model import Pipeline
from vramplan.settings import resolve_settings
from vramplan.units import MIB

ROOT = Path(__file__).resolve().parents[1]
PROFILES = profiles_dir()
CHECK = ["-m", "vramplan", "check", "sd15", "llava:7b", "--card", "8gb", "--card", "12gb", "--json"]
FOREIGN = ("torch", "numpy", "pynvml", "jinja2", "tabulate")
PAIRS = 9

#: SD 1.5 without safety checker: settings, and the design's least limit in MiB
LEAST = (
    ("512x512", {}, 2781),
    ("1024x1024", {"image": (1024, 1024)}, 4668),
    ("1024x1024, batch 2", {"image": (1024, 1024), "batch": 2}, 7228),
)

#: records one pipeline at its default dtype, and says how long and how much memory that took
RECORDING = """
import dataclasses, json, resource, sys, time
from pathlib import Path
from vramplan.catalog import load_pipeline_file
start = time.perf_counter()
from vramplan.engines.torch.record.recipes.registry import recipe_for
from vramplan.engines.torch.record.recorder import record_tape
from vramplan.engines.torch.tape.format import write_tape
from vramplan.engines.torch.open import open_entry
pipeline = open_entry(load_pipeline_file(Path(sys.argv[1])), ())
recipe = recipe_for(pipeline)
dtype = pipeline.defaults["dtype"]
sessions = [(facts, samples) for facts, samples in recipe.sessions if facts["dtype"] == dtype]
tape = write_tape(record_tape(pipeline.name, dataclasses.replace(recipe, sessions=sessions)))
seconds = time.perf_counter() - start
used = resource.getrusage(resource.RUSAGE_SELF)
peak_bytes = used.ru_maxrss if sys.platform == "darwin" else used.ru_maxrss * 1024
print(json.dumps([seconds, used.ru_utime + used.ru_stime, peak_bytes, len(tape)]))
"""


@dataclass(frozen=True)
class Row:
    """A figure: what it is, what it came to, what it must be, and whether it is."""

    what: str
    came_to: str
    target: str
    reached: bool | None  # None: shown, not held to anything


def pipeline_of(name: str) -> TorchPipeline:
    """Return a shipped pipeline."""
    return of_torch(open_target(name).pipeline)


# -------------------------------------------------------------------------------- figures
def published_rows() -> Iterator[Row]:
    """Yield every published figure about a torch pipeline or an engine, ours beside it."""
    names = {pipeline.name: pipeline for pipeline in _pipelines()}
    for claim in load_published(PROFILES):
        pipeline = names[claim.pipeline]
        figure = figure_of(pipeline, claim)
        if figure.ours_bytes is None:
            yield Row(claim.name, "no tape", "-", reached=False)
            continue
        off = (figure.ours_bytes / figure.published_bytes - 1) * 100
        came_to = f"{figure.ours_bytes / MIB:,.1f} MiB, {off:+.2f} %"
        target, reached = _held_to(claim, figure.ours_bytes, figure.published_bytes, off)
        yield Row(claim.name, came_to, target, reached)


def _held_to(claim: Claim, ours: int, published: int, off: float) -> tuple[str, bool | None]:
    size = f"{published / MIB:,.1f} MiB"
    if claim.metric == "bound_below":
        return f"< {size}", ours < published
    if claim.metric == "bound_above":
        return f"> {size}", ours > published
    if claim.tolerance_percent is None:
        return f"{size}, shown", None
    return f"{size} ± {claim.tolerance_percent:g} %", abs(off) <= claim.tolerance_percent


def _pipelines() -> list[Pipeline]:
    files = sorted((PROFILES / "pipelines").glob("*.yaml"))
    return [open_entry(load_pipeline_file(file), (PROFILES,)) for file in files]


def least_limit_rows() -> Iterator[Row]:
    """Yield SD 1.5's least limits; each is proved for every limit above it as it is found."""
    sd15 = pipeline_of("sd15")
    tape = read_tape(PROFILES / "tapes" / "sd15.json")
    for name, changes, design_mib in LEAST:
        settings = resolve_settings(sd15, {"safety_checker": "off", **changes})
        run = rehearse(tape, conditions_at(sd15, settings, "8.6", tape))
        least = find_least_limit(run).limit_bytes
        off = (least / MIB / design_mib - 1) * 100
        below = run.attempt(least - 1)[1] is not None
        reached = abs(off) <= 3 and below and run.attempt(least)[1] is None
        came_to = f"{least / MIB:,.0f} MiB, {off:+.2f} %"
        yield Row(f"least limit of SD 1.5, {name}", came_to, f"{design_mib:,} MiB ± 3 %", reached)


def replay_row() -> Row:
    """Return how long one replay of SD 1.5 takes at a size nobody asked for before."""
    sd15 = pipeline_of("sd15")
    tape = read_tape(PROFILES / "tapes" / "sd15.json")
    times = []
    for width in range(520, 600, 8):
        settings = resolve_settings(sd15, {"image": (width, 648)})
        conditions = conditions_at(sd15, settings, "8.6", tape)
        start = time.process_time()
        run = Replay(tape, conditions, CachingAllocator())
        run.load()
        run.run()
        times.append(time.process_time() - start)
    middle = 1000 * statistics.median(times)
    return Row("replaying SD 1.5 at a new size", f"{middle:.0f} ms", "≤ 50 ms", middle <= 50)


def check_rows() -> Iterator[Row]:
    """Yield a check's time as a multiple of an empty Python's, and what it imports."""
    _timed(CHECK)
    ratios = [_timed(CHECK) / _timed(["-c", "pass"]) for _ in range(PAIRS)]
    ratio = statistics.median(ratios)
    yield Row(
        "vramplan check, whole process", f"{ratio:.1f} x python -c pass", "≤ 10 x", ratio <= 10
    )
    code = (
        "import sys; from vramplan.cli import main; main(sys.argv[1:]); "
        "print(*sys.modules, file=sys.stderr)"
    )
    done = _python(["-c", code, *CHECK[2:]])
    found = sorted(set(FOREIGN) & set(done.stderr.split()))
    verdicts = json.loads(done.stdout)["result"]["verdicts"]
    imports = ", ".join(found) or f"none, {len(verdicts)} verdicts"
    yield Row("of " + ", ".join(FOREIGN) + " imported", imports, "none", not found)


def _timed(arguments: list[str]) -> float:
    start = time.perf_counter()
    _python(arguments)
    return time.perf_counter() - start


def _python(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    # byte code is kept, as it is for what is installed: a start must not compile the sources
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run(command, cwd=ROOT, env=kept, capture_output=True, text=True, check=False)


def tapes_row() -> Row:
    """Return what all tapes and the results beside them weigh."""
    size = sum(path.stat().st_size for path in (PROFILES / "tapes").iterdir())
    return Row("all tapes shipped", f"{size / 1e6:.2f} MB", "≤ 3 MB", size <= 3_000_000)


def recording_rows() -> Iterator[Row]:
    """Yield how long recording SD 1.5 at its default dtype takes, and how much memory."""
    done = _python(["-c", RECORDING, str(PROFILES / "pipelines" / "sd15.yaml")])
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1]
        yield Row("recording SD 1.5", reason, "≤ 45 s", reached=False)
        return
    seconds, processor, peak_bytes, _ = json.loads(done.stdout.strip().splitlines()[-1])
    came_to = f"{seconds:.1f} s, {processor:.1f} s of processors"
    yield Row("recording SD 1.5", came_to, "≤ 45 s", seconds <= 45)
    gib = peak_bytes / (1 << 30)
    yield Row("recording SD 1.5, resident", f"{gib:.2f} GiB", "≤ 1.5 GiB", gib <= 1.5)


#: what is held by tests alone: the row, the tests, and their share of the suite
TESTED = (
    ("parameters and weight bytes", ["tests/accuracy", "-k", "exact_to_the_byte or are_the_whole"]),
    ("quiet loops cut short", ["tests/accuracy", "-k", "cut_short"]),
    ("limits above the least", ["tests/accuracy", "-k", "limit"]),
    ("allocator model against its reference", ["tests/unit/test_allocator.py"]),
    ("size expressions at unseen settings", ["tests/unit", "-k", "not_seen or unseen"]),
)


def test_rows() -> Iterator[Row]:
    """Yield how many tests hold what only tests can hold."""
    for what, selection in TESTED:
        done = _python(["-m", "pytest", "-q", "-p", "no:cacheprovider", *selection])
        counts = {word: int(n) for n, word in re.findall(r"(\d+) (\w+)", done.stdout[-400:])}
        passed, failed = counts.get("passed", 0), counts.get("failed", 0) + counts.get("error", 0)
        reached = done.returncode == 0 and passed > 0
        yield Row(what, f"{passed} tests passed, {failed} failed", "all pass", reached)


# --------------------------------------------------------------------------------- output
def rows(*, is_quick: bool) -> Iterator[Row]:
    """Yield every row, the slow ones last."""
    yield from published_rows()
    yield from least_limit_rows()
    yield replay_row()
    yield from check_rows()
    yield tapes_row()
    if not is_quick:
        yield from test_rows()
        yield from recording_rows()


def main() -> int:
    """Print the rows as they come; return 1 where one is not reached."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="leave out tests and recording")
    missed = []
    for row in rows(is_quick=parser.parse_args().quick):
        sign = {True: "ok  ", False: "MISS", None: "    "}[row.reached]
        print(f"{sign}  {row.what:44}  {row.came_to:34}  {row.target}", flush=True)
        if row.reached is False:
            missed.append(row.what)
    print(f"\nnot reached: {', '.join(missed)}" if missed else "\nevery figure is reached")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
