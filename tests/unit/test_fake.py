"""A third engine goes through every question with nothing but its own file."""

from __future__ import annotations

import json

import pytest

from vramplan.ask import check
from vramplan.ask.estimate import estimate_worst
from vramplan.ask.published import compare_published
from vramplan.ask.targets import open_pipelines, silent
from vramplan.catalog import Catalog, load_catalog
from vramplan.catalog.entries import Entries
from vramplan.catalog.pipelines import Entry
from vramplan.engines import door
from vramplan.engines.fake import CONTEXT_BYTES, FAKE, FakeEngine, fake_pipeline
from vramplan.errors import UsageError
from vramplan.model import Job, VerdictKind
from vramplan.report import estimate, fit, verdicts
from vramplan.report.look import Look
from vramplan.units import GIB

CATALOG = load_catalog()
CHOICES = (CATALOG.card("8gb"), CATALOG.card("12gb"))
FORMATS = ("table", "json", "markdown", "html")


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(door._others, FAKE, FakeEngine())


def job(size_bytes: int, batch: int = 1) -> Job:
    pipeline = fake_pipeline(size_bytes, batch=batch)
    return Job(pipeline=pipeline, settings=pipeline.defaults)


def test_an_entry_becomes_the_engines_own_pipeline() -> None:
    entry = Entry(
        name="five", title="five", summary="", runtime=FAKE, defaults={"batch": 1}, constraints={},
        source="", path="", body={"size_bytes": 5 * GIB},
    )  # fmt: skip
    (opened,) = open_pipelines([entry], Catalog(pipelines=Entries(), cards={}))
    found = door.engine_of(opened).estimate(
        Job(pipeline=opened, settings=opened.defaults), CHOICES[0].candidates[0]
    )
    assert found.need.band.expected_bytes == 5 * GIB + CONTEXT_BYTES


def test_it_is_judged_and_advised_and_asked() -> None:
    question = check.Question(jobs=(job(5 * GIB, batch=2),), choices=CHOICES)
    answer = check.answer(question, silent, asks_engine=True)
    small, large = answer.verdicts
    assert (small.kind, large.kind) == (VerdictKind.OOM, VerdictKind.FITS)
    assert [(a.change, a.effect) for a in small.advice] == [("half the batch", "fits")]
    assert small.advice[0].need_bytes == 5 * GIB + CONTEXT_BYTES
    assert [one.engine for one in answer.witnesses] == [FAKE, FAKE]
    assert answer.is_failure()


def test_two_stand_side_by_side() -> None:
    jobs = (job(5 * GIB), job(4 * GIB))
    question = check.Question(jobs=(), groups=(jobs,), choices=CHOICES)
    kinds = [one.kind for one in check.answer(question, silent).verdicts]
    assert kinds == [VerdictKind.OOM, VerdictKind.FITS]


@pytest.mark.parametrize("format_", FORMATS)
def test_every_report_draws_it(format_: str) -> None:
    question = check.Question(jobs=(job(5 * GIB, batch=2),), choices=CHOICES)
    answer = check.answer(question, silent)
    budget = estimate_worst(question.jobs[0], CHOICES)
    look = Look(format=format_, command="check")
    cards = [choice.candidates[0] for choice in CHOICES]
    drawn = [
        verdicts.render(answer.verdicts, answer.estimates, cards, look),
        estimate.render(budget, cards, look),
        fit.render(answer.verdicts, answer.estimates, cards, look),
    ]
    assert all("half the batch" in text for text in (drawn[0], drawn[2]))
    assert all(FAKE in text for text in drawn)
    if format_ == "json":
        peak = json.loads(drawn[1])["result"]["peak"]
        assert peak["device_bytes"] == 10 * GIB + CONTEXT_BYTES


def test_nobody_published_anything_of_it() -> None:
    assert compare_published(fake_pipeline(GIB)) == ()


def test_a_runtime_without_an_engine_is_named() -> None:
    with pytest.raises(UsageError, match="no engine runs 'abacus'"):
        door.engine_for("abacus")
