"""Models that people run, at their whole size: every buffer of the engine's own plan is ours."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("xllamacpp")
pytest.importorskip("gguf")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the pretended card is for Linux")

from tools.popular_models import CONTEXTS, compare, names  # noqa: E402  # behind what it needs

#: experts that stay behind, with a layer that guesses ahead and is not dealt out
FEW = ("GLM 4.5 Air", 32_768)


def test_a_model_is_fitted_to_a_card_as_the_engine_fits_it(tmp_path) -> None:
    name, context = FEW
    found = compare(name, context, tmp_path)
    assert found.is_equal, found
    assert found.layers == (47, 47)


@pytest.mark.slow
@pytest.mark.parametrize("gib", [8, 12, 24, 48])
@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("name", names())
def test_over_thirty_models(tmp_path, name, context, gib) -> None:
    found = compare(name, context, tmp_path, gib)
    assert found.is_equal, found
