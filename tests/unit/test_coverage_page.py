"""The page of what is recorded on the spot: each class with what became of it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tools.coverage import dummies
from tools.coverage.page import write_page
from tools.coverage.pipelines import sides
from tools.coverage.results import Result, Subject, keep, kept, try_apart

SUBJECTS = [
    Subject(kind="pipeline", name=name, class_name=name) for name in ("APipeline", "BPipeline")
] + [Subject(kind="causal", name="llama", class_name="LlamaForCausalLM")]


def result(
    name: str, stage: str, kind: str = "pipeline", reason: str = "", fidelity: str = ""
) -> Result:
    return Result(
        kind=kind, name=name, class_name=name, stage=stage, how="name", reason=reason,
        fidelity=fidelity,
    )  # fmt: skip


def test_what_was_not_tried_is_listed_as_that() -> None:
    results = [result("APipeline", "recorded"), result("llama", "built", "causal", "a|b `c` <d>")]
    page = write_page(SUBJECTS, results, {"torch": "2.13.0"})
    assert "| Pipelines of diffusers | 2 | 1 | 0 | 0 | 1 | 1 | 100 % | 0 | - | - |" in page
    assert "| Language models of transformers | 1 | 1 | 0 | 0 | 1 | 0 | 0 % | 0 | - | - |" in page
    assert "### Recorded, not compared (1)\n\n`APipeline`\n" in page
    assert "### Not tried (1)\n\n`BPipeline`\n" in page
    assert "| `LlamaForCausalLM` | a/b 'c' (d> |" in page


def test_what_cannot_run_is_in_the_total_and_no_recording() -> None:
    why = "LookupError: nor does its default without a recorder: TypeError: no window"
    results = [result("APipeline", "none", reason="no dummies"), result("BPipeline", "none")]
    results.append(result("llama", "none", "causal", why))
    page = write_page(SUBJECTS, results, {})
    assert "| Language models of transformers | 1 | 1 | 0 | 1 | 0 | 0 | - | 0 | - | - |" in page
    assert "| All | 3 | 3 | 2 | 1 | 0 | 0 | - | 0 | - | - |" in page
    assert "### Cannot run: it does not with real data either (1)" in page
    assert f"| `LlamaForCausalLM` | {why} |" in page


def test_a_recording_is_listed_by_how_it_is_like_a_real_run() -> None:
    results = [
        result("APipeline", "recorded", fidelity="equal"),
        result("BPipeline", "recorded", fidelity="peak equal: add 3 B at 1, really mul 2 B at 1"),
    ]
    page = write_page(SUBJECTS, results, {})
    assert "| Pipelines of diffusers | 2 | 2 | 0 | 0 | 2 | 2 | 100 % | 2 | 50 % | 100 % |" in page
    assert "equal to the run with real data (1)\n\n`APipeline`\n" in page
    assert "| `BPipeline` | peak equal: add 3 B at 1, really mul 2 B at 1 |" in page


def test_a_run_that_was_stopped_goes_on_and_the_last_line_counts(tmp_path: Path) -> None:
    path = tmp_path / "coverage.jsonl"
    assert list(kept(path)) == []
    for stage in ("none", "recorded"):
        keep(path, result("APipeline", stage))
    assert [one.stage for one in kept(path)] == ["recorded"]


def test_a_class_that_fails_is_a_result_and_so_is_one_that_ends_its_process() -> None:
    def fails(_: Subject, report) -> None:
        report(stage="built")
        raise ValueError("no such layer")

    def ends(_: Subject, report) -> None:
        report(stage="recorded", how="by name")
        os.kill(os.getpid(), signal.SIGKILL)

    subject = SUBJECTS[0]
    found = try_apart(subject, fails)
    assert (found.stage, found.reason) == ("built", "ValueError: no such layer")
    found = try_apart(subject, ends)
    assert (found.stage, found.how) == ("recorded", "by name")
    assert "ended by signal 9" in found.fidelity


def test_the_dummies_of_a_pipeline_are_found_in_its_test(tmp_path: Path) -> None:
    folder = tmp_path / "tests" / "pipelines" / "flux"
    folder.mkdir(parents=True)
    (folder / "test_flux.py").write_text(
        "class Base:\n    pipeline_class = FluxPipeline\n"
        "    def get_dummy_components(self): ...\n\nclass TestFlux(Base): ...\n"
    )
    (folder / "test_other.py").write_text("class T:\n    pipeline_class = OtherPipeline\n")
    (folder / "test_wrapped.py").write_text(
        "class Wrapper(WrappedPipeline): ...\n\n"
        "class T:\n    pipeline_class = Wrapper\n    def get_dummy_components(self): ...\n"
    )
    places = dict(dummies.places(tmp_path / "tests"))
    where = f"{tmp_path}:tests.pipelines.flux"
    assert places == {
        "FluxPipeline": f"{where}.test_flux:TestFlux",
        "WrappedPipeline": f"{where}.test_wrapped:T",
    }


def test_a_class_without_a_test_borrows_of_its_relatives_first() -> None:
    known = {"FluxPipeline": "a", "WanPipeline": "b", "FluxFillPipeline": "c", "IFPipeline": "d"}
    packages = {"FluxReduxPipeline": "flux", "WanPipeline": "wan", "IFPipeline": "flux"}
    assert dummies.lenders("FluxReduxPipeline", known, packages) == ("d", "a", "c", "b")


class Needs:
    def __init__(self, unet: int, text: str, scheduler: float = 1.0) -> None: ...


def test_what_is_borrowed_is_of_the_type_that_is_wanted(monkeypatch) -> None:
    lent = {
        "a:tests.x:X": {"unet": "no number", "text": "a", "scheduler": 2.0},
        "b:tests.y:Y": {"unet": 3, "text": "b"},
    }
    monkeypatch.setattr(
        dummies, "own", lambda place: dummies.Dummies(components=lent[place], inputs={"at": place})
    )
    found = dummies.borrowed(Needs, list(lent))
    assert found.components == {"unet": 3, "text": "a", "scheduler": 2.0}
    assert found.inputs == {"at": "a:tests.x:X"}
    with pytest.raises(LookupError, match="nor any other's unet"):
        dummies.borrowed(Needs, ["a:tests.x:X"])


class Shaped:
    def __init__(self, *shape: int) -> None:
        self.shape = shape


def test_a_test_says_how_large_its_images_are() -> None:
    assert sides({"width": 32, "height": 16}) == (32, 16)
    assert sides({"prompt": "a", "image": [Shaped(1, 3, 16, 32)]}) == (32, 16)
    assert sides({"video": Shaped(16, 32, 3)}) == (32, 16)
    assert sides({"prompt": "a"}) is None
    assert sides({"image": Shaped(1, 3, 4096, 4096)}) is None
