"""Plans of several targets side by side, held against every change and every pair of any."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from vramplan.ask.judge import judge_together
from vramplan.ask.plan_together import TogetherQuestion, _Joint, find_joint_plan
from vramplan.ask.targets import make_jobs
from vramplan.budget.change import Change, combine
from vramplan.catalog import load_catalog
from vramplan.errors import UsageError, VramplanError
from vramplan.model import VerdictKind

CATALOG = load_catalog()


def question(names: tuple[str, ...], card: str, **other) -> TogetherQuestion:
    return TogetherQuestion(
        jobs=tuple(make_jobs(names, CATALOG, {})),
        choice=CATALOG.card(card),
        catalog=CATALOG,
        **other,
    )


def fits(asked: TogetherQuestion, trial: _Joint, change: Change) -> bool:
    """Judge it as `check --together` does."""
    try:
        verdict, _ = judge_together(
            trial.changed(change.settings), asked.choice, margin_bytes=asked.margin_bytes
        )
    except VramplanError:
        return False
    return verdict.kind is VerdictKind.FITS


def check_against_all(asked: TogetherQuestion) -> None:
    """See that the cheapest change and the cheapest pair are found, and that nothing is idle."""
    plan, trial = find_joint_plan(asked), _Joint(asked)
    if not plan.is_needed:
        assert (trial.verdict.kind, plan.options) == (VerdictKind.FITS, ())
        return
    changes = list(trial.changes())
    single = [change for change in changes if fits(asked, trial, change)]
    pairs = [
        combine(pair)
        for pair in combinations(changes, 2)
        if not pair[0].settings.keys() & pair[1].settings.keys()
        and not any(one in single for one in pair)
        and fits(asked, trial, combine(pair))
    ]
    fitting = [one for one in plan.options if one.verdict.kind is VerdictKind.FITS]
    for count, known in ((1, single), (2, pairs)):
        mine = [option.price for option in fitting if len(option.changes) == count]
        assert min(mine, default=None) == min((one.price for one in known), default=None)
    prices = [option.price for option in plan.options]
    assert prices == sorted(prices)
    for option in plan.options:
        again = make_jobs(option.targets, CATALOG, {})
        verdict, _ = judge_together(again, asked.choice, margin_bytes=asked.margin_bytes)
        assert (verdict.kind, verdict.need) == (option.verdict.kind, option.verdict.need)
        for change in option.changes if option in fitting else ():
            rest = combine([one for one in option.changes if one is not change])
            assert not fits(asked, trial, rest)


@pytest.mark.parametrize(
    ("names", "card"),
    [
        (("log-anomaly-ae[batch=524288]", "log-anomaly-ae[batch=262144]"), "rtx-3050-6gb"),
        (("llava:7b[context=16384]", "llava-v1.5-7b"), "rtx-3060-12gb"),
        (("llava:7b[context=16384]", "sd15"), "rtx-3080-10gb"),
    ],
)
def test_the_cheapest_change_and_the_cheapest_pair_of_any_are_found(names, card) -> None:
    check_against_all(question(names, card))


@pytest.mark.slow
def test_pairs_of_the_catalogue_on_twelve_cards() -> None:
    dice = random.Random(15)  # noqa: S311  # which pairs are tried
    names = sorted(CATALOG.pipelines)
    for card in (
        "4gb", "6gb", "8gb", "10gb", "12gb", "16gb", "24gb", "gtx-1060-6gb", "rtx-2070",
        "rtx-3060-12gb", "rtx-4060", "rtx-5080",
    ):  # fmt: skip
        for _ in range(3):
            check_against_all(question(tuple(dice.choices(names, k=2)), card))


def test_what_fits_side_by_side_is_left_as_it_is() -> None:
    plan = find_joint_plan(question(("sd15", "llava:7b"), "24gb"))
    assert (plan.is_needed, plan.options, plan.everything) == (False, (), None)


def test_the_smallest_card_is_one_on_which_all_fit_and_no_smaller_does() -> None:
    asked = question(("sd15", "llava:7b"), "8gb")
    smallest = find_joint_plan(asked).smallest
    assert smallest is not None
    cards = sorted(
        (card for card in CATALOG.cards.values() if not card.shares_memory),
        key=lambda card: card.total_bytes - card.reserved_bytes,
    )
    fitting = []
    for card in cards:
        try:
            verdict, _ = judge_together(asked.jobs, CATALOG.card(card.name))
        except VramplanError:
            continue
        fitting += [card.name] if verdict.kind is VerdictKind.FITS else []
    assert smallest.card == fitting[0]


def test_what_cannot_fit_says_by_how_much_and_that_each_fits_alone() -> None:
    plan = find_joint_plan(question(("llava:7b", "llava-v1.5-7b"), "rtx-3070"))
    assert plan.options == ()
    assert plan.everything is not None
    assert (plan.missing_bytes or 0) > 0
    assert [advice.change for advice in plan.nearest] == ["run them one after the other"]


def test_two_alike_are_told_apart() -> None:
    trial = _Joint(question(("sd15", "sd15[batch=2]", "sd15"), "8gb"))
    assert trial.labels == ["sd15", "sd15#2", "sd15#3"]
    changed = trial.changed({"sd15#2.batch": 1, "sd15#3.offload": "model"})
    assert [job.settings["batch"] for job in changed] == [1, 1, 1]
    assert [job.settings["offload"] for job in changed] == ["none", "none", "model"]


def test_more_than_a_search_can_look_at_are_refused() -> None:
    with pytest.raises(UsageError, match="for 17 side by side is for 16 at most"):
        find_joint_plan(question(("denoising-ae",) * 17, "8gb"))
