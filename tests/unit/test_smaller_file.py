"""Which smaller file of a model would be on the GPU as a whole."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vramplan.engines.ggml.estimate import estimate_ggml
from vramplan.engines.ggml.pipeline import of_ggml
from vramplan.engines.ggml.read_model import read_model
from vramplan.engines.ggml.smaller_file import smaller_file
from vramplan.engines.ggml.weights import GgmlModel
from vramplan.model import (
    GPU,
    PROJECTOR,
    Band,
    Buffer,
    Estimate,
    LineKind,
    Pipeline,
    Verdict,
    VerdictKind,
    buffer_bytes,
)
from vramplan.units import MIB


@pytest.fixture(scope="module")
def whole(mixture: Pipeline) -> Estimate:
    return estimate_ggml(mixture, mixture.defaults, "8.6", Band.exactly(400 * MIB))


@pytest.fixture(scope="module")
def model(mixture: Pipeline) -> GgmlModel:
    return read_model(of_ggml(mixture))


def verdict(whole: Estimate, budget_bytes: int) -> Verdict:
    return Verdict(
        pipeline="x", card="x", card_title="x", judged_as="x", kind=VerdictKind.OFFLOAD,
        need=whole.need.band, budget_bytes=budget_bytes, offload_risk=1.0, peak_phase="load",
        peak_component="language_model", reason="x",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("share", "name"),
    [(0.999, "iq4_xs"), (0.95, "q3_k_l"), (0.7, "iq3_xxs"), (0.66, "q2_k"), (0.5, None)],
)
def test_the_largest_type_that_is_small_enough(
    model: GgmlModel, whole: Estimate, share: float, name: str | None
) -> None:
    """The file has 4.5 bits a weight and some in f32, 4.51; q3_k_l would have 4.15, by its rule."""
    missing = round(buffer_bytes(whole.buffers, LineKind.WEIGHTS) * (1 - share))
    budget = whole.need.band.high_bytes - missing
    found = smaller_file(model, whole, verdict(whole, budget), is_fitted=False, is_ollama=False)
    if name is None:
        assert found is None
        return
    assert found is not None
    assert f": {name}, " in found.change
    assert "this one has 4.5" in found.change
    assert found.need_bytes is not None
    spread = whole.need.band.high_bytes - whole.need.band.expected_bytes
    assert found.need_bytes + spread <= budget


def test_the_engines_margin_must_be_left(model: GgmlModel, whole: Estimate) -> None:
    least = (
        whole.need.band.expected_bytes
        - buffer_bytes(whole.buffers, LineKind.ENGINE_POOL)
        + 1024 * MIB
    )
    assert (
        smaller_file(model, whole, verdict(whole, least), is_fitted=True, is_ollama=False) is None
    )
    assert (
        smaller_file(model, whole, verdict(whole, least - 1), is_fitted=True, is_ollama=False)
        is not None
    )
    projector = Buffer(kind=LineKind.WEIGHTS, device=GPU, size_bytes=100 * MIB, component=PROJECTOR)
    with_projector = replace(whole, buffers=(*whole.buffers, projector))
    more = least + 100 * MIB
    assert (
        smaller_file(model, with_projector, verdict(whole, more), is_fitted=True, is_ollama=True)
        is None
    )
    assert (
        smaller_file(
            model, with_projector, verdict(whole, more - 1), is_fitted=True, is_ollama=True
        )
        is not None
    )
