"""Several cards as one CARD: how they are written, which sets of candidates they stand for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vramplan.budget.verdict import candidate_budgets, judged_as
from vramplan.catalog.card_groups import MOST_CARDS, is_group
from vramplan.catalog.search import load_catalog
from vramplan.errors import UsageError

CATALOG = load_catalog()


def names(text: str) -> list[list[str]]:
    return [[seat.card.name for seat in one.seats] for one in CATALOG.card(text).candidates]


@pytest.mark.parametrize(
    ("text", "label", "seats"),
    [
        ("2xrtx-3090", "2xrtx-3090", ["rtx-3090", "rtx-3090"]),
        ("3 x RTX 3090", "3xrtx-3090", ["rtx-3090"] * 3),
        ("rtx-4090+rtx-3060-12gb", "rtx-4090+rtx-3060-12gb", ["rtx-4090", "rtx-3060-12gb"]),
        ("rtx-3090+rtx-3090", "2xrtx-3090", ["rtx-3090", "rtx-3090"]),
        ("a100-80gb+2xrtx-3090", "a100-80gb+2xrtx-3090", ["a100-80gb", "rtx-3090", "rtx-3090"]),
    ],
)
def test_cards_keep_their_order_and_their_number(text: str, label: str, seats: list[str]) -> None:
    choice = CATALOG.card(text)
    (only,) = choice.candidates
    assert choice.label == label
    assert [seat.card.name for seat in only.seats] == seats
    assert only.total_bytes == sum(seat.card.total_bytes for seat in only.seats)


def test_a_number_is_a_class_here_too() -> None:
    assert CATALOG.card("2x8") == CATALOG.card("2x8gb")


def test_one_card_is_that_card() -> None:
    assert CATALOG.card("1xrtx-3090") == CATALOG.card("rtx-3090")
    assert not is_group("rtx-3090")
    assert not is_group("11.6GiB")


@pytest.mark.parametrize(
    ("text", "label", "remote"),
    [
        ("rpc:rtx-3090", "rpc:rtx-3090", [True]),
        ("rtx-4090+rpc:RTX 3060 12GB", "rtx-4090+rpc:rtx-3060-12gb", [False, True]),
        ("2xrpc:rtx-3090+rtx-4090", "2xrpc:rtx-3090+rtx-4090", [True, True, False]),
    ],
)
def test_cards_of_other_machines_are_told_from_ours(
    text: str, label: str, remote: list[bool]
) -> None:
    choice = CATALOG.card(text)
    (only,) = choice.candidates
    assert choice.label == label
    assert [seat.card.is_remote for seat in only.seats] == remote
    assert all(seat.card.is_remote == seat.card.name.startswith("rpc:") for seat in only.seats)


@pytest.mark.parametrize("text", ["rpc:", "rpc:rpc:8gb", "rpc:2xrtx-3090", "rpc:10.0.0.2:50052"])
def test_what_names_no_card_of_another_machine_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="names no card of another machine"):
        CATALOG.card(text)


def test_cards_of_a_class_are_of_one_architecture_and_classes_of_any() -> None:
    alone = len(CATALOG.card("24gb").candidates)
    twice = CATALOG.card("2x24gb").candidates
    assert len(twice) == alone > 1
    for found in twice:
        assert len({seat.card.compute_capability for seat in found.seats}) == 1
        assert judged_as(found) == f"compute capability {found.compute_capability}"
    mixed = CATALOG.card("24gb+12gb").candidates
    assert len(mixed) == alone * len(CATALOG.card("12gb").candidates)
    assert any(" and " in judged_as(found) for found in mixed)


def test_the_oldest_architecture_stands_for_all() -> None:
    (found,) = CATALOG.card("rtx-4090+gtx-1080+rtx-3090").candidates
    assert found.compute_capability == "6.1"


def test_each_card_has_a_budget_of_its_own() -> None:
    choice = CATALOG.card("rtx-4090+rtx-3060-12gb")
    ((found, budget),) = candidate_budgets(choice, 1 << 30, 1 << 20)
    for seat in found.seats:
        usable = seat.card.total_bytes - seat.card.reserved_bytes
        assert seat.budget_bytes == usable - (1 << 30) - (1 << 20)
    assert budget == sum(seat.budget_bytes for seat in found.seats)


def test_a_card_that_is_too_small_for_a_context_is_named() -> None:
    with pytest.raises(UsageError, match=r"^rtx-3060-12gb: "):
        list(candidate_budgets(CATALOG.card("a100-80gb+rtx-3060-12gb"), 12 << 30, 0))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("+", "not a list of cards"),
        ("rtx-3090+", "not a list of cards"),
        ("2x2xrtx-3090", "not a list of cards"),
        ("2xrtx-309", "'rtx-309' is in several cards' names"),
        ("rtx-3090+nonsense", "unknown card 'nonsense'"),
        ("2xauto", "unknown card 'auto'"),
        ("16xrtx-3090", f"more than {MOST_CARDS} cards"),
        ("999x8gb", f"more than {MOST_CARDS} cards"),
        ("8gb+12gb+16gb+24gb", "too many sets of cards"),
        ("2x9", "no card of the class 9gb"),
    ],
)
def test_what_is_no_list_of_cards_is_said(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        CATALOG.card(text)


@given(st.lists(st.sampled_from(["rtx-3090", "rtx-4090", "12gb", "11GiB"]), min_size=2, max_size=5))
def test_a_label_stands_for_the_same_cards(parts: list[str]) -> None:
    choice = CATALOG.card("+".join(parts))
    assert CATALOG.card(choice.label) == choice
    assert all(len(found.seats) == len(parts) for found in choice.candidates)
