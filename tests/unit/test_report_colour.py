"""Colour is for terminals only, and never the only sign of a verdict."""

from __future__ import annotations

import io

import pytest

from vramplan.model import VerdictKind
from vramplan.report import phrases
from vramplan.report.colour import SIGNS, Tone, paint, verdict_tone, wants_colour


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_a_terminal_gets_colour_unless_its_user_says_no(
    environment: dict[str, str], wanted: bool
) -> None:
    assert wants_colour(Terminal(), environment) is wanted


def test_a_pipe_and_a_closed_stream_get_none() -> None:
    closed = io.StringIO()
    closed.close()
    assert not wants_colour(io.StringIO(), {})
    assert not wants_colour(closed, {})


def test_paint_wraps_text_and_leaves_blanks_alone() -> None:
    assert paint("fits", Tone.FITS, colour=True) == "\x1b[32mfits\x1b[0m"
    assert paint("fits", Tone.FITS, colour=False) == "fits"
    assert paint("   ", Tone.FITS, colour=True) == "   "
    assert paint("plain", Tone.PLAIN, colour=True) == "plain"


def test_every_verdict_has_a_sign_a_word_and_a_tone_of_its_own() -> None:
    words = {phrases.verdict(kind) for kind in VerdictKind}
    assert words == {"✓ fits", "~ tight", "⚠ offload", "✗ oom"}
    assert len(set(SIGNS.values())) == len({verdict_tone(kind) for kind in VerdictKind}) == 4
