"""The sentence at the end of a comparison says what the figures say."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from vramplan.compare.comparison import Explanation, compare_run
from vramplan.compare.waterfall import Basis, Step, Waterfall
from vramplan.report.closing import close_comparison, close_explanation
from vramplan.units import MIB

_PATH = Path(__file__).parents[1] / "synthetic_runs.py"
_SPEC = importlib.util.spec_from_file_location("synthetic_runs", _PATH)
synthetic = sys.modules.setdefault("synthetic_runs", importlib.util.module_from_spec(_SPEC))
if not hasattr(synthetic, "a_run"):
    _SPEC.loader.exec_module(synthetic)
a_run = synthetic.a_run


@pytest.fixture(scope="module")
def planned():
    return synthetic.an_estimate("sd15")


@pytest.mark.parametrize(
    ("off", "said"), [(0.1, "% too little; "), (-0.05, "% too much; "), (0.0, ", as was estimated")]
)
def test_a_run_closes_with_how_near_the_estimate_was(planned, off: float, said: str) -> None:
    comparison = compare_run(planned, a_run(planned, off=off))
    closing = close_comparison(comparison)
    assert closing.startswith("In short: torch held at most ")
    assert said in closing
    if off:
        assert f"no figure is off by more than {comparison.worst_percent:.1f} %." in closing


def test_a_run_that_measured_nothing_says_so(planned) -> None:
    run = a_run(planned)
    bare = replace(
        run,
        stretches=tuple(
            replace(one, torch=None, process_peak_bytes=None, process_used_bytes=None)
            for one in run.stretches
        ),
    )
    assert close_comparison(compare_run(planned, bare)).startswith("In short: nothing was measured")


def _explained(planned, shown: int, step: int) -> str:
    one = Step(kind=None, name="weights", estimate_bytes=1, bytes=step * MIB, basis=Basis.MEASURED)
    waterfall = Waterfall(steps=(one,), shown_bytes=shown * MIB, shown_by="nvidia-smi")
    return close_explanation(Explanation(estimate=planned, waterfall=waterfall, sentences=()))


def test_a_card_closes_with_what_is_left(planned) -> None:
    assert _explained(planned, 1000, 990).endswith(
        "all is accounted for to 2 %, and 990 MiB are weights."
    )
    assert _explained(planned, 1000, 900).endswith(
        "900 MiB are weights; 100 MiB (10 %) are not accounted for."
    )
    assert "the steps come to 200 MiB (20 %) more than is shown" in _explained(planned, 1000, 1200)
    assert "nothing is told" in _explained(planned, 1000, 0)
