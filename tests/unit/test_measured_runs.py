"""The accuracy page's part about measured runs, made from a folder of the test's own."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import measured_runs

from vramplan.measurement.codec import encode_run
from vramplan.measurement.run import Emulation, Failure, FailureKind

ROOT = Path(__file__).parents[2]
_SPEC = importlib.util.spec_from_file_location(
    "synthetic_runs", ROOT / "tests" / "synthetic_runs.py"
)
synthetic = sys.modules.setdefault("synthetic_runs", importlib.util.module_from_spec(_SPEC))
_SPEC.loader.exec_module(synthetic)


def test_without_runs_it_says_how_to_make_them(tmp_path: Path) -> None:
    said = measured_runs.render(tmp_path)
    assert "Nothing yet" in said
    assert "benchmarks/campaign.py" in said


def test_every_run_is_a_row_and_the_errors_are_summed_up(tmp_path: Path) -> None:
    folder = tmp_path / "measured" / "card"
    folder.mkdir(parents=True)
    planned = synthetic.an_estimate()
    played = Emulation(card="8gb", free_bytes=8 << 30, compute_capability="8.6")
    failure = Failure(kind=FailureKind.OOM, phase="denoise", component="unet", message="")
    runs = {
        "plain": synthetic.a_run(planned, off=0.02),
        "played": synthetic.a_run(planned, emulation=played),
        "failed": synthetic.a_run(planned, emulation=played, failure=failure),
        "context": replace(synthetic.a_run(planned), pipeline="@context"),
    }
    for name, run in runs.items():
        whole = {"command": "campaign", "result": {"run": encode_run(run)}}
        (folder / f"{name}.json").write_text(json.dumps(whole))
    said = measured_runs.render(tmp_path)
    assert "| allocated | 2 | 1.48 % | 1.96 % | `plain` | 2 |" in said
    assert "Under emulated cards: 2 runs, 1 false *fits*, 0 false *oom*." in said
    assert "| `failed` | NVIDIA Imaginary |  |  |  |" in said
    assert "check: fits; ran to its end" in said
    assert "`context`" not in said
