"""The accuracy page's part about measured runs, made from a folder of the test's own."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

from tools.docs import measured_runs
from vramplan.ask.library import open_target
from vramplan.engines.torch.pipeline import of_torch
from vramplan.engines.torch.replayed import conditions_at
from vramplan.engines.torch.tape_files import find_tape, open_tape
from vramplan.measurement.history import encode_history
from vramplan.measurement.run import Emulation, Failure, FailureKind
from vramplan.measurement.run_json import encode_run

ROOT = Path(__file__).parents[2]
_SPEC = importlib.util.spec_from_file_location(
    "synthetic_runs", ROOT / "tests" / "synthetic_runs.py"
)
synthetic = sys.modules.setdefault("synthetic_runs", importlib.util.module_from_spec(_SPEC))
_SPEC.loader.exec_module(synthetic)


def test_without_runs_it_says_how_to_make_them(tmp_path: Path) -> None:
    said = measured_runs.render(tmp_path)
    assert "Nothing yet" in said
    assert "python -m tools.campaign" in said


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
    assert "Event by event" not in said


def test_runs_with_the_allocators_events_are_held_against_their_tapes(tmp_path: Path) -> None:
    folder = tmp_path / "measured" / "card"
    folder.mkdir(parents=True)
    planned = synthetic.an_estimate("denoising-ae")
    pipeline = of_torch(open_target("denoising-ae").pipeline)
    tape = open_tape(find_tape(pipeline))
    conditions = conditions_at(pipeline, planned.settings, "8.6", tape)
    taken = replace(conditions, workspace_bytes=lambda *_: 1 << 20)
    name = "ae.history.json.gz"
    (folder / name).write_bytes(encode_history(synthetic.a_history(tape, taken, is_cold=True)))
    run = synthetic.a_run(planned, history=name)
    whole = {"command": "campaign", "result": {"run": encode_run(run)}}
    (folder / "ae.json").write_text(json.dumps(whole))
    said = measured_runs.render(tmp_path)
    assert "### Event by event" in said
    row = next(line for line in said.splitlines() if line.startswith("| `ae` | ") and "yes" in line)
    _, _, measured, planned_count, both, extra, missing, torch, model, same, off, _ = (
        cell.strip() for cell in row.split("|")
    )
    assert int(measured) > int(planned_count) == int(both) > 0
    assert float(extra) == int(measured) - int(both), "a MiB for each convolution"
    assert (missing, torch, same, off) == ("0.0", model, "yes", "+0.00 %")
