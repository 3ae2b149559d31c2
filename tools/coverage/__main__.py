"""Records every pipeline of diffusers and every architecture of transformers, small.

    python -m tools.coverage --tests DIR            all that were not tried yet, and the page
    python -m tools.coverage --kind causal NAME ... these again
    python -m tools.coverage --page                 the page alone, of what is kept

DIR is the folder ``tests`` of diffusers' repository at the installed version; another, of an older
version, may be named behind it for what was dropped since. Each class has a process of its own with
120 seconds of CPU time, and takes 2 to 10. Results are kept in a file, a line each (`--keep`,
coverage.jsonl), so that a run may be stopped and goes on. What diffusers' tests import
(parameterized, requests-mock) has to be there.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
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
    parser.add_argument(
        "--tests", type=Path, action="append", default=[], help="diffusers' own folder tests"
    )
    parser.add_argument("--kind", choices=list(page.TITLES), help="these alone")
    parser.add_argument("--keep", type=Path, default=Path("coverage.jsonl"))
    parser.add_argument("--quick", action="store_true", help="without the runs with real data")
    parser.add_argument("--page", action="store_true", help="try nothing")
    asked = parser.parse_args(arguments)
    os.environ.update({**QUIET, "TRANSFORMERS_VERBOSITY": "critical"})
    subjects = [
        *(() if asked.kind in models.KINDS else pipelines.subjects(asked.tests)),
        *(() if asked.kind == pipelines.KIND else models.subjects()),
    ]
    done = {(one.kind, one.name): one for one in kept(asked.keep)}
    if not asked.page:
        _import_once()
        for subject in subjects:
            if _is_wanted(subject, asked.names, asked.kind, done):
                result = _try(replace(subject, is_compared=not asked.quick))
                keep(asked.keep, result)
                done[result.kind, result.name] = result
    if not asked.names and not asked.kind:
        versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
        PAGE.write_text(page.write_page(subjects, list(done.values()), versions), encoding="utf-8")
    return 0


def _import_once() -> None:
    """Import what most classes need, so that no process has to."""
    import diffusers
    import transformers

    from vramplan.engines.torch.record.saved import recording_child, whole_pipeline

    del recording_child, whole_pipeline
    for name in ("StableDiffusionXLPipeline", "FluxPipeline", "WanPipeline"):
        getattr(diffusers, name)
    for name in ("T5EncoderModel", "CLIPTextModel", "LlamaForCausalLM"):
        getattr(transformers, name)


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


def _try(subject: Subject) -> Result:
    import torch

    torch.set_num_threads(1)
    is_pipeline = subject.kind == pipelines.KIND
    result = try_apart(subject, pipelines.record if is_pipeline else models.record)
    print(
        f"{result.kind:10} {result.class_name:48.48} {result.stage:9} {result.cpu_seconds:5} s  "
        f"{result.how or result.reason} {result.fidelity}",
        flush=True,
    )
    return result


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
