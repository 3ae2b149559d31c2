"""Learning from runs: synthetic ones teach what they were made with, and are never shipped."""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tools import first_looks, learn
from vramplan.budget import cuda_context as context
from vramplan.budget import learned
from vramplan.catalog.cards import assumed_card
from vramplan.compare.accuracy import make_case, sum_up
from vramplan.engines.torch import convolution_workspace as workspace
from vramplan.errors import CatalogError, MeasurementError
from vramplan.measurement.run import (
    Emulation,
    Failure,
    FailureKind,
    MeasuredWorkspace,
    Witness,
)
from vramplan.measurement.run_json import encode_run
from vramplan.model import Origin, VerdictKind

ROOT = Path(__file__).parents[2]
MIB = 1 << 20


def _load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = sys.modules.setdefault(path.stem, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


synthetic = _load(ROOT / "tests" / "synthetic_runs.py")


@pytest.fixture(scope="module")
def planned():
    return synthetic.an_estimate()


def workspaces(percents: tuple[int, int, int], dtype: str = "float16") -> tuple:
    made = []
    for channels, out, side in ((128, 128, 64), (256, 128, 32), (64, 512, 16)):
        one = MeasuredWorkspace(
            dtype=dtype, batch=1, in_channels=channels, out_channels=out, side=side, kernel=3,
            layout="nchw", benchmark="off", cold_bytes=None, warm_bytes=0,
        )  # fmt: skip
        sizes = learn._operands(one, learn._DTYPES[dtype])
        made.append(replace(one, warm_bytes=learn._share(sizes, percents)))
    return tuple(made)


@pytest.mark.parametrize("percents", [(100, 100, 100), (100, 0, 100), (50, 50, 0), (0, 0, 0)])
def test_the_shares_of_a_workspace_are_recovered(planned, percents) -> None:
    run = synthetic.a_run(planned, workspaces=workspaces(percents))
    (found,) = learn.learn_convolutions([run])
    shares = tuple(found[f"{name}_percent"] for name in ("input", "output", "filter"))
    assert shares == percents
    assert (found["compute_capability"], found["element_bytes"]) == ("8.6", 2)


def test_contexts_are_what_the_process_holds_beside_torch(planned) -> None:
    runs = [synthetic.a_run(planned), replace(synthetic.a_run(planned), pipeline="other")]
    contexts = learn.contexts_of(runs)
    assert [one.bytes for one in contexts] == [synthetic.CONTEXT_BYTES] * 2
    band = learn.learn_contexts(contexts)["8.6"]
    assert band["bytes"] == synthetic.CONTEXT_BYTES
    assert learn.leave_one_out(contexts) == [("other", "8.6", 1, 1), ("sd15", "8.6", 1, 1)]


def test_a_pipeline_that_differs_from_the_others_is_found_by_leaving_it_out(planned) -> None:
    contexts = learn.contexts_of([synthetic.a_run(planned)])
    contexts += [replace(contexts[0], pipeline="big", bytes=contexts[0].bytes * 2)]
    assert [row[2] for row in learn.leave_one_out(contexts)] == [0, 0]


def test_synthetic_runs_teach_nothing(planned, tmp_path, monkeypatch, capsys) -> None:
    folder = tmp_path / "measured" / "card"
    folder.mkdir(parents=True)
    whole = {"command": "campaign", "result": {"run": encode_run(synthetic.a_run(planned))}}
    (folder / "a.json").write_text(json.dumps(whole))
    monkeypatch.setattr(sys, "argv", ["learn.py", "--measured", str(tmp_path)])
    assert learn.main() == 0
    assert "nothing learned" in capsys.readouterr().out
    assert not (tmp_path / "learned.json").exists()


def test_what_a_gpu_said_is_used_with_its_name(planned, tmp_path, monkeypatch) -> None:
    """The run is synthetic and says it is a GPU's, in a folder of the test's own."""
    folder = tmp_path / "measured" / "card"
    folder.mkdir(parents=True)
    run = synthetic.a_run(planned, witness=Witness.GPU, workspaces=workspaces((50, 0, 100)))
    whole = {"command": "campaign", "result": {"run": encode_run(run)}}
    (folder / "a.json").write_text(json.dumps(whole))
    monkeypatch.setattr(sys, "argv", ["learn.py", "--measured", str(tmp_path)])
    assert learn.main() == 0
    monkeypatch.setattr(sys, "argv", ["learn.py", "--measured", str(tmp_path), "--check"])
    assert learn.main() == 0
    monkeypatch.setattr(learned, "profiles_dir", lambda: tmp_path)
    unknown = replace(assumed_card("8.6"), multiprocessors=None)
    assert context.context_band(unknown).expected_bytes == synthetic.CONTEXT_BYTES
    origin, source = context.context_source(unknown)
    assert origin is Origin.MEASURED
    assert "NVIDIA Imaginary, driver 000.00" in source
    scratch = workspace.convolution_scratch("8.6", 2)
    assert scratch.percents[:3] == (50, 0, 100)
    assert scratch.origin is Origin.MEASURED
    assert context.context_source(assumed_card("8.9"))[0] is Origin.PUBLISHED
    # another size of the architecture, and a process that is not torch's
    assert context.context_source(assumed_card("8.6"))[0] is Origin.PUBLISHED
    assert context.context_source(unknown, context.Process.GGML)[0] is Origin.ASSUMED
    assert workspace.convolution_scratch("8.9", 2).origin is Origin.ASSUMED


def test_raw_files_of_a_first_look_teach_too(tmp_path) -> None:
    """The format is described in tools/first_looks.py; these figures are made up."""
    folder = tmp_path / "measured" / "card"
    folder.mkdir(parents=True)
    memory = {"v1": {"total": 100 * MIB, "used": 50 * MIB}, "driver": "1.2"}
    head = {"device": "A GPU", "capability": [9, 0], "torch": "2.11", "cudnn": 9, "utc": "2026",
            "dry": False, "nvml_before": memory}  # fmt: skip
    seen = {**memory, "processes": [{"pid": 7, "me": True, "used": 400 * MIB}]}
    looks = {
        "context": {"extra": {"after_first_tensor": seen, "after_sdpa": seen}},
        "conv_workspace": {"extra": {"rows": [
            ["torch.float16", False, False, 1, 4, 4, 8, 3, 1024, 512],
            ["torch.float16", False, False, 1, 4, 4, 8, 3, "RuntimeError"],
        ]}},
        "sd15_fp16": {"extra": {}},
    }  # fmt: skip
    for case, data in looks.items():
        packed = gzip.compress(json.dumps({**head, "case": case, **data}).encode())
        (folder / f"{case}.json.gz").write_bytes(packed)
    runs = dict(first_looks.first_looks_in(tmp_path))
    context_run, convolutions = runs.values()
    assert [one.name for one in context_run.context] == ["context", "attention"]
    assert learn.contexts_of([context_run])[0].bytes == 400 * MIB
    assert [one.warm_bytes for one in convolutions.workspaces] == [512, None]
    assert learn.learn([*runs.items()])["contexts"]["9.0"]["bytes"] == 400 * MIB
    (folder / "context.json.gz").write_bytes(gzip.compress(b'{"case": "context"}'))
    with pytest.raises(MeasurementError, match="not a first look"):
        list(first_looks.first_looks_in(tmp_path))


def test_nothing_is_shipped_that_no_gpu_said() -> None:
    assert learned.read_learned(ROOT / "profiles" / "learned.json").contexts == {} or list(
        (ROOT / "profiles" / "measured").glob("*/*.json")
    )


def _context(low: str) -> str:
    """Return a file whose one band has the text `low` for its low end."""
    return (
        f'{{"schema_version": 1, "convolutions": [], "contexts": {{"8.6": {{"low_bytes": {low}, '
        '"bytes": 9, "high_bytes": 9, "source": "x"}}}'
    )


def test_a_band_of_sizes_is_read(tmp_path) -> None:
    path = tmp_path / "learned.json"
    path.write_text(_context("8"))
    assert learned.read_learned(path).contexts["8.6"].band.low_bytes == 8


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"schema_version": 2}',
        '{"schema_version": 1, "contexts": {"8.6": {"low_bytes": -1}}, "convolutions": []}',
        '{"schema_version": 1, "contexts": {}, "convolutions": [{}]}',
        _context("1.5"),
        _context("true"),
        _context('"2"'),
        _context("null"),
    ],
)
def test_a_file_that_says_something_else_is_one_line(tmp_path, text) -> None:
    path = tmp_path / "learned.json"
    path.write_text(text)
    with pytest.raises(CatalogError) as raised:
        learned.read_learned(path)
    assert "\n" not in str(raised.value)


# -- accuracy -----------------------------------------------------------------------------------


def test_errors_are_summed_up(planned) -> None:
    cases = [
        make_case(f"case {off}", synthetic.a_run(planned, off=off), planned)
        for off in (0.01, -0.02, 0.05)
    ]
    found = sum_up(cases)
    assert found.allocated.cases == 3
    assert found.allocated.worst_case == "case 0.05"
    assert found.allocated.worst_percent == pytest.approx(100 * 0.05 / 1.05, abs=0.01)
    assert found.allocated.median_percent == pytest.approx(100 * 0.02 / 0.98, abs=0.01)
    assert found.allocated.under == 2
    assert found.reserved.cases == found.process.cases == 3
    assert found.played == 0


def test_a_false_fit_and_a_false_oom_are_counted(planned) -> None:
    played = Emulation(card="8gb", free_bytes=8 << 30, compute_capability="8.6")
    failure = Failure(kind=FailureKind.OOM, phase="denoise", component="unet", message="")
    good = synthetic.a_run(planned, emulation=played)
    bad = replace(good, failure=failure)
    found = sum_up(
        [
            make_case("a", bad, planned, VerdictKind.TIGHT),
            make_case("b", good, planned, VerdictKind.OOM),
            make_case("c", good, planned, VerdictKind.FITS),
            make_case("d", bad, planned, VerdictKind.OOM),
        ]
    )
    assert found.played == 4
    assert found.false_fits == ("a",)
    assert found.false_ooms == ("b",)
    assert found.reserved is None, "a full card decides what is reserved"
    assert found.process is None, "and so what the process holds"


def test_without_cases_there_is_nothing_to_say() -> None:
    found = sum_up([])
    assert (found.allocated, found.played, found.false_fits) == (None, 0, ())
