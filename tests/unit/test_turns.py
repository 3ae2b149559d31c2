"""A try under a limit goes on behind a loop once it has come back to where it stood."""

from __future__ import annotations

import pytest

from tools.core_fuzz import difference, draw_repeating
from vramplan.engines.torch.tape import native

pytestmark = pytest.mark.skipif(native.find_core()[0] is None, reason=native.find_core()[1])


@pytest.mark.parametrize("first", [0, 24])
def test_limits_of_a_loop_that_repeats_itself_are_the_references(first: int) -> None:
    """Thousands of them: python -m tools.core_fuzz."""
    numbers = range(first, first + 24)
    assert not [found for n in numbers if (found := difference(n, draw_repeating(n)))]
