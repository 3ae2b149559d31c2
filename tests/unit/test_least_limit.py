"""The search for the least limit: the slow one's answer, and words where there is none."""

from __future__ import annotations

import pytest

from tools.core_fuzz import draw
from vramplan.ask.library import open_target
from vramplan.engines.torch import least_limit
from vramplan.engines.torch.estimate import find_tape
from vramplan.engines.torch.least_limit import find_least_limit
from vramplan.engines.torch.pipeline import of_torch
from vramplan.engines.torch.replayed import conditions_at
from vramplan.engines.torch.tape import native
from vramplan.engines.torch.tape.checked import read_checked_tape
from vramplan.engines.torch.tape.rehearsal import Rehearsal, rehearse_in_python
from vramplan.engines.torch.tape.rehearse import rehearse
from vramplan.engines.torch.tape.rehearsed import Refused, Rehearsed, lower_by_attempts
from vramplan.errors import TapeError
from vramplan.model import SettingValue
from vramplan.settings import resolve_settings

needs_core = pytest.mark.skipif(native.find_core()[0] is None, reason=native.find_core()[1])


def _rehearsed(target: str, **settings: SettingValue) -> Rehearsed:
    pipeline = of_torch(open_target(target).pipeline)
    tape = read_checked_tape(find_tape(pipeline))
    asked = resolve_settings(pipeline, settings)
    return rehearse(tape, conditions_at(pipeline, asked, "8.6", tape))


@pytest.mark.parametrize("make", [rehearse, rehearse_in_python])
def test_a_search_that_takes_too_long_says_so(
    make: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(make)
    drawn = draw(3)
    run = make(drawn.tape, drawn.conditions, expandable_segments=drawn.expandable_segments)
    with monkeypatch.context() as patch:
        patch.setattr(least_limit, "_MOST_SECONDS", -1.0)
        with pytest.raises(TapeError, match="was not found in -1 seconds") as problem:
            find_least_limit(run)
    assert find_least_limit(run).limit_bytes > 0  # that was no answer
    assert "too small for it" not in str(problem.value)
    assert problem.value.hint


def test_a_run_that_needs_nothing_has_no_least_limit() -> None:
    drawn = draw(3)
    nothing = Rehearsal(drawn.tape, drawn.conditions)  # neither loaded nor run
    with pytest.raises(TapeError, match="no limit is too small for it"):
        find_least_limit(nothing)


@needs_core
@pytest.mark.parametrize(
    ("target", "settings"),
    [
        ("vit-mae-base", {"mode": "train", "batch": 30}),
        ("sd15", {"image": (640, 512), "steps": 8}),
        ("llava-1.5-7b-hf", {"new_tokens": 40, "batch": 8}),
    ],
)
def test_every_limit_tried_on_the_way_is_what_a_try_by_itself_says(
    target: str, settings: dict[str, SettingValue]
) -> None:
    """A try that goes on from another, against one that starts where the limit first acts."""
    quick, alone = _rehearsed(target, **settings), _rehearsed(target, **settings)
    for refused in Refused:
        most = quick.most_wanted_bytes
        found = quick.lower(most, refused=refused, seconds=60)
        slow = lower_by_attempts(alone, most, refused=refused, seconds=60)
        assert (found.limit_bytes, found.tries) == (slow.limit_bytes, slow.tries)
        assert str(found.failure) == str(slow.failure)


@needs_core
@pytest.mark.slow
def test_long_generation_in_a_batch_is_found_though_it_takes_thousands_of_tries() -> None:
    """The old search gave up after a thousand."""
    run = _rehearsed("llava-1.5-7b-hf", new_tokens=1000, batch=8)
    found = run.lower(run.most_wanted_bytes, refused=Refused.NEXT_PLAN, seconds=60)
    assert found.tries > 2000
    assert found.failure is not None
    assert run.failure(found.limit_bytes, refused=Refused.NEXT_PLAN) is None
