"""Figures are worded so that no rounding promises what is not there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vramplan.model import Band
from vramplan.report import phrases
from vramplan.units import GIB, MIB


def _band(low: int, expected: int, high: int) -> Band:
    return Band(low_bytes=low, expected_bytes=expected, high_bytes=high)


def test_a_need_is_rounded_up_and_an_offer_down() -> None:
    assert phrases.need(100 * MIB + 1) == "101 MiB"
    assert phrases.available(100 * MIB + MIB - 1) == "100 MiB"
    assert phrases.available(-100 * MIB - 1) == "-101 MiB"


@pytest.mark.parametrize(
    ("band", "words"),
    [
        (_band(5, 5, 5), "exact"),
        (_band(2600 * MIB, 2781 * MIB, 2990 * MIB), "2,600–2,990"),
        (_band(11 * GIB, 12 * GIB, 13 * GIB), "11.00–13.00"),
        (_band(9 * GIB, 10 * GIB, 11 * GIB), "9,216 MiB–11.00 GiB"),
        (_band(8 * GIB, 8 * GIB, 11 * GIB), "8,192 MiB–11.00 GiB"),
        (_band(9 * GIB, 10 * GIB - 1, 10 * GIB - 1), "9,216–10,240"),
    ],
)
def test_a_spread_repeats_the_unit_only_where_it_is_another(band: Band, words: str) -> None:
    assert phrases.spread(band) == words


@pytest.mark.parametrize(
    ("risk", "words"),
    [(0.0, "0 %"), (0.004, "<1 %"), (0.314, "31 %"), (0.996, ">99 %"), (1.0, "100 %")],
)
def test_a_risk_is_never_rounded_to_a_certainty(risk: float, words: str) -> None:
    assert phrases.percent(risk) == words


@given(st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_no_risk_between_says_none_or_all(risk: float) -> None:
    assert phrases.percent(risk) not in ("0 %", "100 %")


def test_a_difference_has_a_sign() -> None:
    assert phrases.difference(1014, 1000) == "+1.4 %"
    assert phrases.difference(986, 1000) == "−1.4 %"
    assert phrases.difference(5, 0) == "–"


def test_settings_read_as_the_command_line_takes_them() -> None:
    chosen = {"image": (512, 640), "batch": 2, "guidance": 7.5, "vae_tiling": "off"}
    assert phrases.settings(chosen) == "image=512x640 batch=2 guidance=7.5 vae_tiling=off"
