"""What verdicts come to in a sentence, for people who do not run models themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vramplan.model import Band, Verdict, VerdictKind
from vramplan.report import plain
from vramplan.units import GIB

FITS, TIGHT, OFFLOAD, OOM = VerdictKind
LETTERS = {"f": FITS, "t": TIGHT, "o": OFFLOAD, "x": OOM}


def verdicts(**cards: str) -> list[Verdict]:
    """Make verdicts of a letter each: ``c8="fx"`` is a model that fits 8 GiB and one that fails."""
    return [
        Verdict(
            pipeline=f"m{number}",
            card=card,
            card_title="",
            judged_as="",
            kind=LETTERS[letter],
            need=Band.exactly(GIB),
            budget_bytes=int(card.removeprefix("c")) * GIB,
            offload_risk=0.0,
            peak_phase="load",
            peak_component="unet",
            reason="",
        )
        for card, letters in cards.items()
        for number, letter in enumerate(letters)
    ]


@pytest.mark.parametrize(
    ("cards", "said"),
    [
        ({"c8": "f"}, "On c8 m0 fits."),
        ({"c8": "t"}, "On c8 m0 only just fits."),
        ({"c8": "o"}, "On c8 m0 runs partly in system memory."),
        ({"c8": "x"}, "On c8 m0 does not fit."),
        ({"c8": "ff"}, "Both models fit on c8."),
        ({"c8": "fff", "c12": "fff"}, "All 3 models fit on c8 and c12."),
        ({"c1": "fff", "c2": "fff", "c3": "fff"}, "All 3 models fit on all 3 cards."),
        ({"c8": "xx"}, "On c8 neither model fits."),
        (
            {"c8": "fx", "c12": "ft"},
            "On c8 m0 fits and m1 does not fit; on c12 m0 fits and m1 only just fits.",
        ),
        ({"c8": "xxx"}, "On c8 none of the 3 models fits."),
        ({"c8": "fffx"}, "On c8 3 models fit and m3 does not fit."),
        (
            {"c4": "x", "c8": "t", "c12": "f", "c24": "f"},
            "m0 fits on c12 and c24, only just fits on c8, and does not fit on c4.",
        ),
        (
            {"c24": "ff", "c4": "xo", "c8": "tf"},
            (
                "Of 6 combinations of model and card, 3 fit, 1 only just fits, 1 runs partly in "
                "system memory and 1 does not fit. "
                "The smallest of these cards that takes everything whole is c8."
            ),
        ),
        (
            {"c2": "xf", "c4": "xo", "c8": "xf"},
            (
                "Of 6 combinations of model and card, 2 fit, 1 runs partly in system memory and 3 "
                "do not fit. None of these cards takes everything whole."
            ),
        ),
        ({}, ""),
    ],
)  # fmt: skip
def test_all_verdicts_come_to_a_sentence(cards: dict[str, str], said: str) -> None:
    assert plain.headline(verdicts(**cards)) == said


def test_a_card_that_was_not_asked_for_everything_is_no_answer() -> None:
    rows = verdicts(c4="xx", c8="f", c12="ff", c16="ff")
    assert plain.headline(rows).endswith("whole is c12.")


@pytest.mark.parametrize(
    ("need", "budget", "said"),
    [(1, 100, "1 %"), (1001, 100_000, "2 %"), (150, 100, "150 %"), (1, 0, "–"), (1, -5, "–")],
)
def test_a_share_is_never_rounded_down(need: int, budget: int, said: str) -> None:
    (row,) = verdicts(c8="f")
    assert plain.share(replace(row, need=Band.exactly(need), budget_bytes=budget)) == said


def test_every_verdict_and_every_phase_has_words() -> None:
    assert set(plain.WORDS) == set(plain.MEANINGS) == set(VerdictKind)
    known = "load encode_prompt encode_image denoise decode_image prefill generate train_step idle"
    for phase in known.split():
        assert not plain.moment(phase).startswith("in "), phase
    assert plain.moment("a phase of somebody's") == "in a phase of somebody's"


def test_a_change_is_said_as_what_it_comes_to() -> None:
    assert plain.effect("fits", "2,680 MiB") == "Then it fits and needs 2,680 MiB."
    assert plain.effect("11 of 33 layers on the GPU", "") == "11 of 33 layers on the GPU."
