"""Torch beside a budget: how it is shown, and who is not asked."""

from __future__ import annotations

import pytest

from vramplan.ask.targets import make_jobs
from vramplan.catalog import load_catalog
from vramplan.compare.pair import Pair
from vramplan.compare.witness import Witness, WitnessRow
from vramplan.engines.door import engine_of
from vramplan.engines.torch.engine_check import _named
from vramplan.errors import UsageError
from vramplan.report.engine_witness import draw_witness, mark_witness, witness_object
from vramplan.units import MIB


def witness(ours: int, torch: int) -> Witness:
    size = Pair(estimate_bytes=ours * MIB, measured_bytes=torch * MIB)
    return Witness(
        pipeline="sd15",
        engine="torch 2.14.1 with cuDNN 9.24.0",
        rows=(WitnessRow(name="denoise, unet: allocated", size=size),),
        is_known=True,
        card="rtx-4090",
    )


def test_figures_of_torch_are_peaks_on_a_card_that_is_not_there() -> None:
    shown = draw_witness(witness(100, 100), colour=False, width=100)
    assert "sd15 on rtx-4090, a card that is not there: run once by torch 2.14.1" in shown
    assert "peak" in shown
    assert "equal" in shown
    assert "CONTRADICTS" not in shown
    assert "| denoise, unet: allocated |" in mark_witness(witness(100, 100))
    assert witness_object(witness(100, 100))["layers"] is None


def test_what_differs_by_more_than_is_rounded_away_is_a_contradiction() -> None:
    found = witness(100, 110)
    assert found.contradictions == ("denoise, unet: allocated",)
    assert "CONTRADICTS OURS: denoise, unet: allocated" in draw_witness(found, False, 200)


def test_versions_are_told_as_people_write_them() -> None:
    assert _named({"torch": "2.14.1+cu130", "cudnn": "92400"}) == (
        "torch 2.14.1+cu130 with cuDNN 9.24.0"
    )
    assert _named({"torch": "2.14.1"}) == "torch 2.14.1"


def test_torch_is_asked_about_a_budget_and_not_about_a_verdict() -> None:
    (job,) = make_jobs(["sd15"], load_catalog(()), {})
    with pytest.raises(UsageError, match="torch is asked about a budget") as refused:
        engine_of(job.pipeline).witness(job)
    assert refused.value.hint == "vramplan estimate sd15 --engine-check --card CARD"
