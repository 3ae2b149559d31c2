"""Planted mistakes are each one small change of a file's text."""

from __future__ import annotations

import ast

from tools import mutants

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
