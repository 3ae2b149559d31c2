"""The search for changes, held against all of them, on needs that are made up."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from vramplan.budget.change import LAST_RESORT, LITTLE, MUCH, NOTHING, SOME, Change, combine
from vramplan.budget.combinations import Chain, everything, find_combinations, price_of


def change(name: str, price: int = LITTLE, *, ladder: str | None = None, step: int = 1) -> Change:
    return Change(
        settings={ladder or name: step}, line=f"{name}{step}", cost="x", price=price, ladder=ladder
    )


def names(chain: Chain) -> str:
    return "+".join(one.line for one in chain)


def found(changes: list[Change], *fitting: set[str]) -> list[str]:
    """Return the combinations found where whatever contains one of `fitting` fits."""

    def fits(chain: Chain) -> bool:
        lines = {one.line for one in chain}
        return any(wanted <= lines for wanted in fitting)

    return [names(chain) for chain in find_combinations(changes, fits, fits)]


def test_the_cheapest_comes_first_and_nothing_that_contains_it() -> None:
    changes = [change("a", MUCH), change("b", LITTLE), change("c", SOME)]
    assert found(changes, {"a1"}, {"b1", "c1"}) == ["b1+c1", "a1"]
    assert found(changes, {"b1"}) == ["b1"]
    assert found(changes) == []


def test_of_a_ladder_the_first_step_that_fits_is_enough() -> None:
    steps = [change("n", SOME + n, ladder="n", step=n) for n in (1, 2, 3)]
    assert found([*steps, change("a")], {"n2"}, {"n3"}) == ["n2"]
    assert found([*steps, change("a", MUCH)], {"n1", "a1"}, {"n2"}, {"n3"}) == ["n2", "n1+a1"]


def test_more_than_two_where_that_is_cheaper_than_what_fewer_cost() -> None:
    cheap = [change("a", NOTHING), change("b"), change("c", SOME), change("d", SOME)]
    dear = change("z", LAST_RESORT)
    assert found([*cheap, dear], {"a1", "b1", "c1"}, {"z1"}) == ["a1+b1+c1", "z1"]
    assert found([*cheap], {"a1", "b1", "c1"}) == ["a1+b1+c1"]
    assert found([*cheap], {"a1", "b1", "c1", "d1"}) == ["a1+b1+c1+d1"]


def test_of_more_than_two_a_ladder_goes_no_further_than_it_must() -> None:
    steps = [change("n", SOME + n, ladder="n", step=n) for n in (1, 2, 3)]
    changes = [change("a"), change("b"), *steps]
    wanted = [{"a1", "b1", f"n{n}"} for n in (2, 3)]
    assert found(changes, *wanted) == ["a1+b1+n2"]


def test_changes_of_one_setting_exclude_each_other() -> None:
    fp16 = Change(settings={"dtype": "fp16"}, line="fp16", cost="x")
    bf16 = Change(settings={"dtype": "bf16"}, line="bf16", cost="x")
    assert everything([fp16, change("a"), bf16]) == (change("a"), bf16)
    assert found([fp16, bf16], {"fp16", "bf16"}) == []
    assert combine([fp16, bf16]).settings == {"dtype": "bf16"}


#: what a change saves, and its price
SAVINGS = st.tuples(st.integers(0, 9), st.sampled_from([NOTHING, LITTLE, SOME, MUCH, LAST_RESORT]))


@given(
    alone=st.lists(SAVINGS, max_size=4),
    steps=st.lists(st.integers(1, 9), max_size=3),
    gap=st.integers(1, 25),
)
def test_the_cheapest_change_and_the_cheapest_pair_are_found(
    alone: list[tuple[int, int]], steps: list[int], gap: int
) -> None:
    """Against every change and every pair, where savings add up and along a ladder grow."""
    saves: dict[str, int] = {}
    changes = []
    for number, (saving, price) in enumerate(alone):
        changes.append(change(f"c{number}-", price))
        saves[changes[-1].line] = saving
    total = 0
    for number, saving in enumerate(steps):
        changes.append(change("n", SOME + number, ladder="n", step=number))
        total += saving
        saves[changes[-1].line] = total

    def fits(chain: Chain) -> bool:
        return sum(saves[one.line] for one in chain) >= gap

    got = list(find_combinations(changes, fits, fits))
    assert all(fits(chain) for chain in got)
    assert [price_of(chain) for chain in got] == sorted(price_of(chain) for chain in got)
    single = [(one,) for one in changes if fits((one,))]
    pairs = [
        pair
        for pair in combinations(changes, 2)
        if fits(pair)
        and not any(fits((one,)) for one in pair)
        and not pair[0].settings.keys() & pair[1].settings.keys()
    ]
    for known, count in ((single, 1), (pairs, 2)):
        mine = [price_of(chain) for chain in got if len(chain) == count]
        assert min(mine, default=None) == min(map(price_of, known), default=None)
    if not got:  # then all of them together are not enough
        assert not fits(everything(changes))
