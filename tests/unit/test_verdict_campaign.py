"""The campaign of verdicts: its cases are drawn, judged and counted as it says."""

from __future__ import annotations

import pytest

from tools.docs import witnessed_verdicts
from tools.verdicts.__main__ import OUT, is_asked, read_lines, work_out
from tools.verdicts.drawing import CAPABILITIES, draw_cases
from vramplan.catalog import load_catalog
from vramplan.catalog.cards import usable_bytes

#: as many as are worked out anew in every run of the tests: the others' estimates take longer
SHARE = 8


@pytest.fixture(scope="module")
def lines() -> list[dict]:
    return read_lines(OUT)


def test_ours_is_what_the_estimate_says_now(lines: list[dict]) -> None:
    catalog = load_catalog(())
    some = [one for one in lines[::SHARE] if one["pipeline"] not in ("sdxl", "sdxl-turbo")]
    stale = [one["number"] for one in some if work_out(one, catalog) != one]
    assert stale == [], "run: python -m tools.verdicts --ours"


def test_no_verdict_that_fits_has_failed_and_hardly_one_that_fails_has_not(
    lines: list[dict],
) -> None:
    false = [
        one["number"]
        for one in lines
        for tried in one["tried"]
        if tried["verdict"] == "fits" and tried["failure"]
    ]
    assert false == []
    ooms = [one for line in lines for one in line["tried"] if one["verdict"] == "oom"]
    assert sum(not one["failure"] for one in ooms) <= len(ooms) // 100


def test_the_same_seed_draws_the_same_cases_near_a_need_and_not() -> None:
    catalog = load_catalog(())
    skip = set(range(50)) - {8, 9, 12}  # those of the small autoencoders
    first, again = (list(draw_cases(catalog, 1, 13, skip=skip)) for _ in range(2))
    assert first == again
    assert [case.number for case in first] == [8, 9, 12]
    for case in first:
        assert case.card.compute_capability in CAPABILITIES
        assert 0 < case.budget_bytes <= usable_bytes(case.card)
        assert case.is_near is (case.number % 2 == 0)


def test_a_case_whose_need_has_moved_since_is_asked_again() -> None:
    asked = line(0, 1_000_000, (1_010_000, "tight", True), (990_000, "oom", False))
    moved = line(0, 1_001_000, (1_010_000, "tight", True), (990_000, "oom", False))
    assert is_asked(asked)
    assert not is_asked(moved)


def line(number: int, need: int, *tried: tuple[int, str, bool]) -> dict:
    return {
        "number": number,
        "pipeline": "p",
        "settings": {"batch": "2"},
        "compute_capability": "8.6",
        "versions": {"torch": "2.14.1", "cudnn": "92400"},
        "torch": {"allocated": 1000 << 20, "reserved": 1000 << 20},
        "ours": {
            "allocated": 1000 << 20,
            "reserved": 1020 << 20,
            "need": [need - 1, need, need + 10],
        },
        "tried": [
            {"budget": budget, "failure": None if runs else "decode_image vae", "verdict": verdict}
            for budget, verdict, runs in tried
        ],
    }


def test_verdicts_are_counted_and_the_false_ones_named() -> None:
    more, less = 1_010_000, 990_000
    right = line(0, 1_000_000, (more, "fits", True), (less, "oom", False))
    low = line(1, 1_000_000, (more, "fits", False), (1_030_000, "fits", True))
    high = line(2, 1_000_000, (more, "fits", True), (less, "oom", True), (970_000, "oom", False))
    counted = witnessed_verdicts.count([right, low, high])
    assert counted.runs == 7
    assert counted.false_fits == [low]
    assert counted.false_ooms == 1
    assert [witnessed_verdicts.off_by(one) for one in (right, low, high)] == [1, 3, 3]
