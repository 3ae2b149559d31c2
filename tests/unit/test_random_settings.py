"""Random settings: a small sample of what `tools.random_settings` asks."""

from __future__ import annotations

from collections import Counter

import pytest

from tools.random_settings import Question, ask, draw, failures, wrong_with
from vramplan.catalog import load_catalog

CATALOG = load_catalog()
SEED = 10
#: an entry of each kind; one without a tape would be recorded here, which takes its time
KINDS = (
    *("denoising-ae", "llava-1.5-7b-hf", "llava-v1.5-7b", "llava:7b", "log-anomaly-ae", "sd15"),
    *("sd15-vae", "sdxl", "vit-mae-base"),
)


def test_no_question_of_a_small_sample_goes_wrong() -> None:
    counts: Counter[str] = Counter()
    assert list(failures(SEED, range(12), CATALOG, counts, KINDS)) == []
    assert counts.total() == 12
    assert counts["fits"] > 0


def test_a_question_depends_on_seed_and_number_alone() -> None:
    assert draw(SEED, 3, CATALOG) == draw(SEED, 3, CATALOG)
    assert len({str(draw(SEED, number, CATALOG)) for number in range(40)}) == 40
    assert str(draw(SEED, 3, CATALOG)) != str(draw(SEED + 1, 3, CATALOG))


def test_every_pipeline_and_offload_mode_is_drawn() -> None:
    drawn = [draw(SEED, number, CATALOG, KINDS) for number in range(200)]
    assert {one.pipeline for one in drawn} == set(KINDS)
    assert len({draw(SEED, number, CATALOG).pipeline for number in range(40)}) > len(KINDS)
    of_one = {draw(SEED, number, CATALOG, ["sd15"]).pipeline for number in range(5)}
    assert of_one == {"sd15"}
    modes = {one.settings.get("offload") for one in drawn}
    assert modes >= {"none", "model", "sequential", "auto"}


def test_a_crash_and_a_contradiction_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    question = Question(number=0, pipeline="log-anomaly-ae", card="rtx-3060-12gb", settings={})
    verdict, estimate = ask(question, CATALOG)
    assert list(wrong_with(verdict, estimate)) == []
    from dataclasses import replace

    assert list(wrong_with(replace(verdict, budget_bytes=1), estimate)) == [
        "fits, and the high need does not"
    ]
    assert list(wrong_with(verdict, replace(estimate, lines=estimate.lines[1:])))

    def crash(*_: object) -> None:
        raise ValueError("band out of order")

    monkeypatch.setattr("tools.random_settings.ask", crash)
    ((_, how),) = failures(SEED, range(1), CATALOG, Counter())
    assert "band out of order" in how
