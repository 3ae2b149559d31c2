"""The page of what is recorded on the spot: each class with what became of it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tools.coverage.page import write_page
from tools.coverage.pipelines import _places
from tools.coverage.results import Result, Subject, keep, kept, try_apart

SUBJECTS = [
    Subject(kind="pipeline", name=name, class_name=name) for name in ("APipeline", "BPipeline")
] + [Subject(kind="causal", name="llama", class_name="LlamaForCausalLM")]


def result(name: str, stage: str, kind: str = "pipeline", reason: str = "") -> Result:
    return Result(kind=kind, name=name, class_name=name, stage=stage, how="name", reason=reason)


def test_what_was_not_tried_is_listed_as_that() -> None:
    results = [result("APipeline", "recorded"), result("llama", "built", "causal", "a|b `c` <d>")]
    page = write_page(SUBJECTS, results, {"torch": "2.13.0"})
    assert "| Pipelines of diffusers | 2 | 1 | 1 | 1 | 100 % |" in page
    assert "| Language models of transformers | 1 | 1 | 1 | 0 | 0 % |" in page
    assert "| `APipeline` | recorded, by name |" in page
    assert "| `BPipeline` | not tried |" in page
    assert "| `LlamaForCausalLM` | not recorded: a/b 'c' (d> |" in page


def test_a_run_that_was_stopped_goes_on_and_the_last_line_counts(tmp_path: Path) -> None:
    path = tmp_path / "coverage.jsonl"
    assert list(kept(path)) == []
    for stage in ("none", "recorded"):
        keep(path, result("APipeline", stage))
    assert [one.stage for one in kept(path)] == ["recorded"]


def test_a_class_that_fails_is_a_result_and_so_is_one_that_ends_its_process() -> None:
    def fails(_: Subject, reached) -> str:
        reached("built")
        raise ValueError("no such layer")

    def ends(_: Subject, __) -> str:
        os.kill(os.getpid(), signal.SIGKILL)

    subject = SUBJECTS[0]
    found = try_apart(subject, fails)
    assert (found.stage, found.reason) == ("built", "ValueError: no such layer")
    assert "ended by signal 9" in try_apart(subject, ends).reason


def test_the_dummies_of_a_pipeline_are_found_in_its_test(tmp_path: Path) -> None:
    folder = tmp_path / "tests" / "pipelines" / "flux"
    folder.mkdir(parents=True)
    (folder / "test_flux.py").write_text(
        "class Base:\n    pipeline_class = FluxPipeline\n"
        "    def get_dummy_components(self): ...\n\nclass TestFlux(Base): ...\n"
    )
    (folder / "test_other.py").write_text("class T:\n    pipeline_class = OtherPipeline\n")
    places = dict(_places(tmp_path / "tests"))
    assert places == {"FluxPipeline": f"{tmp_path}:tests.pipelines.flux.test_flux:TestFlux"}
