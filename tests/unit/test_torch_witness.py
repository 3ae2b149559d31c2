"""The table of torch beside ours: ours is what the estimate says now, and the table adds up."""

from __future__ import annotations

import pytest

from tools.docs import witnessed_torch
from tools.torch_witness import CARDS, CASES, ENTRIES, work_out
from vramplan.catalog import load_catalog

MIB = 1 << 20


@pytest.fixture(scope="module")
def cases() -> list[dict]:
    return witnessed_torch.read_cases()["cases"]


def test_ours_is_what_the_estimate_says_now(cases: list[dict]) -> None:
    catalog = load_catalog(())
    stale = [(one["pipeline"], one["card"]) for one in cases if work_out(one, catalog) != one]
    assert stale == [], "run: python -m tools.torch_witness --ours"


def test_every_architecture_and_pipeline_is_there(cases: list[dict]) -> None:
    assert {one["pipeline"] for one in cases} == {*(name for name, _ in CASES), *ENTRIES}
    assert {one["compute_capability"] for one in cases} >= {
        "7.5",
        "8.0",
        "8.6",
        "8.9",
        "9.0",
        "12.0",
    }
    assert {one["card"] for one in cases} <= set(CARDS)
    assert all(one["failure"] is None for one in cases)


def case(card: str, ours: int, torch: int) -> dict:
    pair = {"ours": ours * MIB, "torch": torch * MIB}
    return {
        "pipeline": "p", "settings": {"mode": "m", "steps": "2"}, "card": card,
        "compute_capability": {"a": "8.0", "b": "10.0"}[card], "allocated": pair, "reserved": pair,
        "failure": None,
    }  # fmt: skip


def test_cards_with_the_same_figures_share_a_row() -> None:
    same = [case("b", 10, 10), case("a", 10, 10)]
    (group,) = witnessed_torch._groups(same)
    row = witnessed_torch._row(group)
    assert row == "| p, m 2 | 8.0, 10.0 | 10.0 | 10.0 | 0 | 10.0 | 10.0 | 0 |"
    assert len(list(witnessed_torch._groups([*same, case("a", 9, 10)]))) == 2


def test_summary_counts_what_is_equal_and_what_is_below() -> None:
    said = witnessed_torch._summary([case("a", 10, 10), case("b", 5, 10)], "reserved")
    assert said.startswith("**Reserved**: 1 of 2 equal to within 1 MiB; median off +25.00 %")
    assert said.endswith("worst \N{MINUS SIGN}50.00 %; ours is below torch's in 1.")
