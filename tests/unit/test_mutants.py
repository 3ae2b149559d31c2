"""Planted mistakes are each one small change of a file's text."""

from __future__ import annotations

import ast

import pytest

from tools import mutants, warm_tests

SOURCE = '''\
def f(a, b):
    """Say é."""
    if not a < b and min(a, 100) >= 2:
        return a + b * 3
    return g(a_bytes, b_bytes, f"{a + 1}") is True
'''


def test_each_mistake_is_one_change_that_still_parses() -> None:
    made = [one.within(SOURCE) for one in mutants._File("f.py", SOURCE).mistakes()]
    assert len(made) == len(set(made)) == 13
    for text in made:
        ast.parse(text)
    changed = [text.splitlines()[2:5] for text in made]
    assert all(sum(x != y for x, y in zip(lines, SOURCE.splitlines()[2:5], strict=True)) == 1
               for lines in changed)  # fmt: skip
    for piece in ("a <= b", "max(a, 100)", ">= 3", "103", "a - b", "return b * 3", "if a < b",
                  "b * 4", " or ", "g(b_bytes, a_bytes", "is False"):  # fmt: skip
        assert any(piece in text for text in made), piece


def test_every_place_and_its_tests_are_there() -> None:
    for place in mutants.PLACES:
        assert (mutants.ROOT / place).exists(), place
        assert all((mutants.ROOT / test).is_file() for test in mutants.tests_of(place)), place


MODULE = """\
MOST = 3

class A:
    of = MOST

    def f(self, a=1):
        def g(b):
            return a + b
        return g(2) + 1

def h(): return [x for x in (1, 2)]
"""


@pytest.mark.parametrize(
    ("was", "now", "changed"),
    [
        ("return a + b", "return a - b", ["A.f"]),
        ("g(2) + 1", "g(2)", ["A.f"]),
        ("g(2) + 1", "g(2) + True", ["A.f"]),
        ("(1, 2)", "(1, 3)", ["h"]),
        ("MOST = 3", "MOST = 4", None),
        ("of = MOST", "of = not MOST", None),
        ("a=1", "a=2", None),
        ("MOST = 3", "MOST = 3 ", []),
    ],
)
def test_a_mistake_is_made_in_live_functions_alone(was, now, changed) -> None:
    old, new = compile(MODULE, "m", "exec"), compile(MODULE.replace(was, now), "m", "exec")
    pairs = list(warm_tests._changed(old, new))
    assert (None if None in pairs else [one.co_qualname for one, _ in pairs]) == changed


def test_a_live_function_does_what_the_new_text_says() -> None:
    names: dict = {}
    old = compile(MODULE, "m", "exec")
    exec(old, names)  # noqa: S102  # the text above
    live = {("m", "A.f"): [names["A"].f]}
    changed = list(warm_tests._changed(old, compile(MODULE.replace("a + b", "a - b"), "m", "exec")))
    for function, code in warm_tests._found(live, changed):
        function.__code__ = code
    assert names["A"]().f(5) == 5 - 2 + 1
    assert warm_tests._found({}, changed) is None


def test_what_an_import_runs_is_tried_where_its_names_stand() -> None:
    assert mutants._lines_with_its_names(MODULE, 1) == [1, 4]
    assert mutants._lines_with_its_names(MODULE, 6) == []
