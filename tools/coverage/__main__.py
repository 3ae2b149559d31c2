"""Records every pipeline of diffusers and every architecture of transformers, small.

    python -m tools.coverage --tests DIR            all that were not tried yet, and the page
    python -m tools.coverage --kind causal NAME ... these again
    python -m tools.coverage --page                 the page alone, of what is kept

DIR is the folder ``tests`` of diffusers' repository at the installed version. Each class has a
process of its own with 90 seconds of CPU time, and takes 2 to 6. Results are kept in a file, a line
each (`--keep`, coverage.jsonl), so that a run may be stopped and goes on.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.coverage import models, page, pipelines
from tools.coverage.results import Result, Subject, keep, kept, try_apart
from vramplan.engines.torch.libraries import LIBRARIES, QUIET

PAGE = Path(__file__).parents[2] / "docs" / "coverage.md"


def main(arguments: Sequence[str]) -> int:
    """Try what was not tried, and write the page unless only some were asked for."""
    words = __doc__ or ""
    parser = argparse.ArgumentParser(
        prog="python -m tools.coverage",
        description=words,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--tests", type=Path, help="diffusers' own folder tests")
    parser.add_argument("--kind", choices=list(page.TITLES), help="these alone")
    parser.add_argument("--keep", type=Path, default=Path("coverage.jsonl"))
    parser.add_argument("--page", action="store_true", help="try nothing")
    asked = parser.parse_args(arguments)
    os.environ.update({**QUIET, "TRANSFORMERS_VERBOSITY": "critical"})
    subjects = [*(pipelines.subjects(asked.tests) if asked.tests else ()), *models.subjects()]
    done = {(one.kind, one.name): one for one in kept(asked.keep)}
    if not asked.page:
        for subject in subjects:
            if _is_wanted(subject, asked.names, asked.kind, done):
                result = _try(subject, asked.tests)
                keep(asked.keep, result)
                done[result.kind, result.name] = result
    if not asked.names and not asked.kind:
        versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
        PAGE.write_text(page.write_page(subjects, list(done.values()), versions), encoding="utf-8")
    return 0


def _is_wanted(
    subject: Subject,
    names: Sequence[str],
    kind: str | None,
    done: dict[tuple[str, str], Result],
) -> bool:
    if kind is not None and subject.kind != kind:
        return False
    if names:
        return subject.name in names or subject.class_name in names
    return (subject.kind, subject.name) not in done


def _try(subject: Subject, tests: Path | None) -> Result:
    import torch

    torch.set_num_threads(1)
    work = models.record
    if subject.kind == pipelines.KIND:
        assert tests is not None  # without it there is no such subject
        work = pipelines.recorder(tests.resolve())
    result = try_apart(subject, work)
    print(
        f"{result.kind:10} {result.class_name:48.48} {result.stage:9} {result.cpu_seconds:5} s  "
        f"{result.how or result.reason}",
        flush=True,
    )
    return result


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
