"""Sizes as expressions of the settings they were seen at."""

from __future__ import annotations

import pytest

from vramplan.engines.torch.record.size_fit import Fitter
from vramplan.errors import RecordingError


def samples(size, tokens=(3, 4, 6)):
    return [({"new": token + 2, "token": token}, size(token)) for token in tokens]


def test_a_mask_of_every_token_before_every_token_is_the_square_of_a_length() -> None:
    fitter = Fitter(("token",))
    assert fitter.fit(samples(lambda n: (n + 25) ** 2), "mask") == "(token+25)*(token+25)"
    assert fitter.fit(samples(lambda n: 8 * (n - 1) ** 2), "mask") == "8*(token-1)*(token-1)"
    assert fitter.fit(samples(lambda n: 2 * n * n), "mask") == "2*token*token"
    assert fitter.fit(samples(lambda n: 4 * n + 100), "row") == "4*token+100"


def test_what_is_no_square_everywhere_is_refused() -> None:
    fitter = Fitter(("token",))
    with pytest.raises(RecordingError, match="no expression"):
        fitter.fit(samples(lambda n: (n + 25) ** 2 + (n == 6)), "mask")
    with pytest.raises(RecordingError, match="no expression"):
        fitter.fit(samples(lambda n: 2**n, (3, 4, 6, 9)), "what doubles")
    with pytest.raises(RecordingError, match="too few"):
        fitter.fit(samples(lambda n: (n + 25) ** 2, (3, 4)), "mask")
