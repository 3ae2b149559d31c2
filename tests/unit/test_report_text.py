"""Strangers' text is one harmless line, and wrapping never loses a letter."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vramplan.report.text import clean, cut, fit, for_encoding, width_of, wrap


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07name", "name"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b2Jcleared", "cleared"),
        ("two\nlines\tand\r\nmore", "two lines and more"),
        ("bell\x07 back\x08 nul\x00", "bell� back� nul�"),
        ("\u202egnp.exe", "gnp.exe"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("half \ud800 pair", "half � pair"),
        ("line\u2028separator", "line separator"),
        ("\ufffe\ufdd0", "��"),
        ("naïve 模型 ✓", "naïve 模型 ✓"),
    ],
)
def test_what_acts_on_a_terminal_or_hides_text_is_taken_out(hostile: str, shown: str) -> None:
    assert clean(hostile) == shown


@given(st.text(st.characters(), max_size=300))
def test_clean_text_holds_no_controls_and_stays_clean(text: str) -> None:
    shown = clean(text)
    assert not any(unicodedata.category(letter) in ("Cc", "Cf", "Cs") for letter in shown)
    assert clean(shown) == shown
    shown.encode("utf-8")


def test_a_very_long_text_is_cut_where_the_limit_is() -> None:
    assert clean("a" * 10**6, 10) == "aaaaaaaaa…"


@given(st.text("ab-._/ 模", max_size=120), st.integers(2, 40))
def test_wrapped_lines_fit_and_hold_every_letter(text: str, width: int) -> None:
    lines = wrap(text, width)
    assert all(width_of(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_a_long_name_breaks_behind_a_joint() -> None:
    assert wrap("decode_image_again", 14) == ["decode_image_", "again"]


def test_cut_text_says_that_something_is_missing() -> None:
    assert cut("text_encoder", 8) == "text_en…"
    assert cut("模型模型", 5) == "模型…"
    assert cut("unet", 8) == "unet"


@given(st.text("ab模", max_size=12), st.integers(1, 9))
def test_fitted_text_takes_the_cells_it_was_given(text: str, width: int) -> None:
    assert width_of(fit(text, width)) == width


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "no-such-encoding"])
def test_our_signs_are_spelled_out_where_the_encoding_lacks_them(encoding: str) -> None:
    assert for_encoding("✓ fits 2–3 MiB · a → b", encoding) == "+ fits 2-3 MiB - a -> b"


def test_a_capable_encoding_leaves_text_alone() -> None:
    assert for_encoding("✓ fits", "utf-8") == "✓ fits"
    assert for_encoding("✓ fits", None) == "✓ fits"
