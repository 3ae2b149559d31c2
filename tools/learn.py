"""Learn from measured runs: CUDA contexts, and the workspace of convolutions.

    python -m tools.learn               profiles/measured -> profiles/learned.json
    python -m tools.learn --measured DIR --out FILE
    python -m tools.learn --check       exit 1 where the file is not what the runs say

What is learned is validated leaving one pipeline out at a time: the context that the other
pipelines teach must hold the one that was left out. Without measured runs nothing is written.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.first_looks import first_looks_in
from vramplan.budget.cuda_context import context_key
from vramplan.budget.learned import SCHEMA_VERSION
from vramplan.catalog import load_catalog
from vramplan.catalog.multiprocessors import find_printed
from vramplan.commands.result_file import write_file
from vramplan.measurement.files import runs_in
from vramplan.measurement.run import MeasuredGpu, MeasuredWorkspace, Run, Witness
from vramplan.units import MIB

ROOT = Path(__file__).resolve().parents[1]

#: the shares of an operand that a workspace may be made of: none, a half, a whole copy
_PERCENTS = (0, 50, 100)
_DTYPES = {"float16": 2, "bfloat16": 2, "float32": 4}


@dataclass(frozen=True, slots=True)
class Context:
    """What one process held beside its tensors, at its end."""

    pipeline: str
    capability: str  # and size: see context_key
    bytes: int
    source: str


def contexts_of(runs: Iterable[Run]) -> list[Context]:
    """Return the context of each run that tells it: the process less what torch had reserved.

    At a run's end every kernel it needs is loaded, which is what a budget must hold.
    """
    found = []
    for run in runs:
        if run.gpu is None:
            continue
        size = None
        held = run.held
        if held is not None and held.process_used_bytes is not None and held.torch is not None:
            size = held.process_used_bytes - held.torch.reserved_bytes
        elif run.context and run.context[-1].process_used_bytes is not None:
            last = run.context[-1]
            size = last.process_used_bytes - last.reserved_bytes
        if size is not None and size > 0 and run.emulation is None:
            source = f"{run.gpu.name}, driver {run.gpu.driver}, torch {run.versions.get('torch')}"
            found.append(Context(run.pipeline, _kind_of(run.gpu), size, source))
    return found


def _kind_of(gpu: MeasuredGpu) -> str:
    """Return what a context is kept under: the architecture, and the size where that is known."""
    known = find_printed(gpu.name, gpu.total_bytes, load_catalog().cards.values())
    multiprocessors = None if known is None else known.multiprocessors
    return context_key(gpu.compute_capability, multiprocessors)


def learn_contexts(contexts: Sequence[Context]) -> dict[str, dict[str, object]]:
    """Return lowest, median and highest context for each architecture."""
    found: dict[str, dict[str, object]] = {}
    for capability in sorted({one.capability for one in contexts}):
        these = [one for one in contexts if one.capability == capability]
        sizes = sorted(one.bytes for one in these)
        sources = "; ".join(sorted({one.source for one in these}))
        found[capability] = {
            "low_bytes": sizes[0],
            "bytes": int(statistics.median(sizes)),
            "high_bytes": sizes[-1],
            "source": f"measured in {len(sizes)} runs: {sources}",
        }
    return found


def leave_one_out(contexts: Sequence[Context]) -> list[tuple[str, str, int, int]]:
    """Return a row for each pipeline left out: how its runs fit what the others teach.

    A row is its name, the architecture, how many of its contexts lie within the others' band, and
    of how many.
    """
    rows = []
    pairs = sorted({(one.pipeline, one.capability) for one in contexts})
    for pipeline, capability in pairs:
        mine = [c for c in contexts if (c.pipeline, c.capability) == (pipeline, capability)]
        others = [
            c.bytes for c in contexts if c.capability == capability and c.pipeline != pipeline
        ]
        if others:
            inside = sum(min(others) <= one.bytes <= max(others) for one in mine)
            rows.append((pipeline, capability, inside, len(mine)))
    return rows


def learn_convolutions(runs: Iterable[Run]) -> list[dict[str, object]]:
    """Return the shares that explain the measured workspaces best, by architecture and size.

    The median error decides, among no, half and whole copies of input, output and filter.
    """
    rows: dict[tuple[str, int], list[MeasuredWorkspace]] = {}
    sources: dict[tuple[str, int], str] = {}
    for run in runs:
        if run.gpu is None:
            continue
        for one in run.workspaces:
            is_default = one.layout == "nchw" and one.benchmark == "off"
            if is_default and one.warm_bytes is not None and one.dtype in _DTYPES:
                key = (run.gpu.compute_capability, _DTYPES[one.dtype])
                rows.setdefault(key, []).append(one)
                sources[key] = f"{run.gpu.name}, driver {run.gpu.driver}, " + ", ".join(
                    f"{name} {run.versions[name]}"
                    for name in ("torch", "cudnn")
                    if name in run.versions
                )
    return [_fit(key, these, sources[key]) for key, these in sorted(rows.items())]


def _fit(key: tuple[str, int], rows: Sequence[MeasuredWorkspace], source: str) -> dict[str, object]:
    element = key[1]
    operands = [_operands(one, element) for one in rows]
    taken = [one.warm_bytes or 0 for one in rows]

    def error(percents: tuple[int, ...]) -> float:
        return statistics.median(
            abs(_share(sizes, percents) - real) / max(real, MIB)
            for sizes, real in zip(operands, taken, strict=True)
        )

    best = min(itertools.product(_PERCENTS, repeat=3), key=lambda one: (error(one), sum(one)))
    high = max(
        100 * real / sum(sizes) for sizes, real in zip(operands, taken, strict=True) if sum(sizes)
    )
    return {
        "compute_capability": key[0],
        "element_bytes": element,
        "input_percent": best[0],
        "output_percent": best[1],
        "filter_percent": best[2],
        "high_percent": int(-(-high // 1)),
        "source": f"measured over {len(rows)} convolutions, median error "
        f"{100 * error(best):.1f} %: {source}",
    }


def _operands(one: MeasuredWorkspace, element: int) -> tuple[int, int, int]:
    """Return input, output and filter of a convolution that keeps its side, bytes."""
    area = one.batch * one.side * one.side * element
    filters = one.in_channels * one.out_channels * one.kernel * one.kernel * element
    return area * one.in_channels, area * one.out_channels, filters


def _share(sizes: Sequence[int], percents: Sequence[int]) -> int:
    return sum(size * percent for size, percent in zip(sizes, percents, strict=True)) // 100


def learn(runs: Sequence[tuple[Path, Run]]) -> Mapping[str, object] | None:
    """Return what the runs teach, or None where none of them is from a GPU."""
    real = [run for _, run in runs if run.witness is Witness.GPU]
    if not real:
        return None
    return {
        "schema_version": SCHEMA_VERSION,
        "written_by": "tools/learn.py",
        "runs": len(real),
        "newest": max(run.created for run in real),
        "contexts": learn_contexts(contexts_of(real)),
        "convolutions": learn_convolutions(real),
    }


def main() -> int:
    """Learn, and write or check the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measured", type=Path, default=ROOT / "profiles", metavar="DIR",
                        help="a folder with measured/*/*.json")  # fmt: skip
    parser.add_argument("--out", type=Path, help="default: learned.json in that folder")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    out = options.out or options.measured / "learned.json"
    runs = [*runs_in(options.measured), *first_looks_in(options.measured)]
    found = learn(runs)
    if found is None:
        print(f"no run from a GPU in {options.measured / 'measured'}: nothing learned")
        return int(options.check and out.exists())
    text = json.dumps(found, indent=2) + "\n"
    for pipeline, capability, inside, of in leave_one_out(contexts_of(run for _, run in runs)):
        print(f"left out {pipeline} on {capability}: {inside} of {of} contexts within the others'")
    if options.check:
        return int(not out.exists() or out.read_text(encoding="utf-8") != text)
    write_file(out, text, replaces=True)
    print(f"wrote {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
