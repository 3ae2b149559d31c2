"""The line that says how far long work is."""

from __future__ import annotations

import pytest

from vramplan.report.progress_line import draw, tell


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ((0, 0, 0, 0.0), "x"),
        ((0, 0, 0, 75.4), "x, 1:15"),
        ((2, 8, 0, 0.0), "x, 2 of 8"),
        ((2, 8, 0, 10.0), "x, 2 of 8, 0:10, about 0:30 left"),
        ((6, 8, 4, 10.0), "x, 6 of 8, 0:10, about 0:10 left"),  # four were there already
        ((4, 8, 4, 10.0), "x, 4 of 8, 0:10"),  # nothing says how fast it is
        ((1, 10_000, 0, 3.0), "x, 1 of 10,000, 0:03, about 8:19:57 left"),
        ((1, 4, 0, 2.0, 1.0), "x, 1 of 4, 0:02, about 0:02 left"),
        # one that takes long: less is left than before, and then nobody knows
        ((1, 4, 0, 3.0, 2.0), "x, 1 of 4, 0:03, about 0:01 left"),
        ((1, 4, 0, 61.0, 60.0), "x, 1 of 4, 1:01"),
    ],
)
def test_what_is_said(at, said) -> None:
    assert tell("x", *at) == said


@pytest.mark.parametrize("done", [0, 3, 8])
def test_a_drawn_line_fits_a_terminal(done) -> None:
    line = draw("a step with a long name " * 9, done, 8, 0, 12.0)
    assert len(line) <= 79
    assert (line.count("█"), line[:20].count("·")) == (20 * done // 8, 20 - 20 * done // 8)
    assert len(draw("y" * 200, 0, 0, 0, 12.0)) <= 79
