"""What replays alike is rehearsed once, and says what every run rehearsed on its own says."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tools.core_fuzz import Halving, RandomRun, answers, draw, kin, taken_over
from tools.random_settings import Question
from tools.random_settings import draw as draw_question
from vramplan.ask.library import open_target
from vramplan.ask.targets import make_jobs, override
from vramplan.catalog import load_catalog
from vramplan.engines.door import engine_of
from vramplan.engines.torch import rehearsals, screening
from vramplan.engines.torch.least_limit import LeastLimit, find_least_limit
from vramplan.engines.torch.pipeline import of_torch
from vramplan.engines.torch.replayed import conditions_at
from vramplan.engines.torch.tape import native
from vramplan.engines.torch.tape.checked import read_checked_tape
from vramplan.engines.torch.tape.conditions import Conditions, Percents
from vramplan.engines.torch.tape.rehearsal import rehearse_in_python
from vramplan.engines.torch.tape.rehearse import rehearse
from vramplan.engines.torch.tape.rehearsed import Refused, Rehearsed
from vramplan.engines.torch.tape.trace import ReplayOutOfMemory
from vramplan.engines.torch.tape_files import find_tape
from vramplan.errors import TapeError, VramplanError

CATALOG = load_catalog()
needs_core = pytest.mark.skipif(native.find_core()[0] is None, reason=native.find_core()[1])


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    rehearsals.forget()
    yield
    rehearsals.forget()


def _shares(conditions: Conditions, percent: int) -> Conditions:
    shares = Percents(input_percent=percent, output_percent=0, filter_percent=percent)
    return replace(conditions, workspace_bytes=shares, cast_workspace_bytes={})


def test_the_same_conditions_are_rehearsed_once_and_others_anew() -> None:
    drawn = draw(1)
    one, other = _shares(drawn.conditions, 100), _shares(drawn.conditions, 50)

    def run(conditions: Conditions) -> object:
        return rehearsals.rehearse_once(drawn.tape, conditions, expandable_segments=False)

    assert run(one) is run(_shares(drawn.conditions, 100))
    assert run(one) is not run(other)
    assert run(one) is not run(replace(one, cublas_bytes=1 << 25))
    assert run(one) is not run(replace(one, numbers={"batch": 17}))


def test_scratch_that_cannot_be_compared_is_never_taken_for_another() -> None:
    drawn = draw(1)

    def half(_kind: str, operands: tuple[int, ...]) -> int:
        return sum(operands) // 2

    conditions = replace(drawn.conditions, workspace_bytes=half, cast_workspace_bytes={})
    one, other = (
        rehearsals.rehearse_once(drawn.tape, conditions, expandable_segments=False)
        for _ in range(2)
    )
    assert one is not other


def test_only_the_latest_are_kept() -> None:
    drawn = draw(1)
    first = _shares(drawn.conditions, 1)
    kept = rehearsals.rehearse_once(drawn.tape, first, expandable_segments=False)
    for batch in range(1, 60):
        others = replace(first, numbers={"batch": batch + 9})
        rehearsals.rehearse_once(drawn.tape, others, expandable_segments=False)
    again = rehearsals.rehearse_once(drawn.tape, first, expandable_segments=False)
    assert again is not kept


def _live(run: Rehearsed) -> int:
    return run.trace.allocated_peak_bytes


def test_what_was_read_of_a_run_outlives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = draw(1)
    asked = [
        replace(_shares(drawn.conditions, 100), numbers={"batch": batch + 9})
        for batch in range(30)  # more than are kept
    ]
    alone = [_live(rehearse(drawn.tape, one, expandable_segments=False)) for one in asked]
    assert len(set(alone)) == len(asked)

    def read() -> list[int]:
        return [
            rehearsals.read_once(_live, drawn.tape, one, expandable_segments=False) for one in asked
        ]

    assert read() == alone
    monkeypatch.setattr(rehearsals, "rehearse", None)  # none is needed now
    assert read() == alone


def test_two_things_read_of_one_run_are_told_apart() -> None:
    drawn = draw(1)
    one = _shares(drawn.conditions, 100)

    def request_count(run: Rehearsed) -> int:
        return run.request_count

    live, count = (
        rehearsals.read_once(read, drawn.tape, one, expandable_segments=False)
        for read in (_live, request_count)
    )
    run = rehearsals.rehearse_once(drawn.tape, one, expandable_segments=False)
    assert (live, count) == (_live(run), run.request_count)


@pytest.mark.parametrize("spills", [False, True])
def test_a_run_that_is_only_remembered_is_screened_as_one_at_hand(spills: bool) -> None:
    """At, around and far from every figure of a run by which a screening spares itself the run."""
    for number in range(20):
        drawn = draw(number)
        one = _shares(drawn.conditions, 100)
        run = rehearse_in_python(drawn.tape, one, expandable_segments=drawn.expandable_segments)
        trace, wanted = run.trace, run.most_wanted_bytes
        peaks = trace.allocated_peak_bytes, trace.reserved_peak_bytes
        for limit in {0, *(size + step for size in (*peaks, wanted) for step in (-1, 0, 1))}:
            if spills:
                completes = peaks[1] <= limit
            else:
                _, failure = run.attempt(max(limit, 0), refused=Refused.NEXT_PLAN)
                completes = peaks[0] <= limit and failure is None
            found = screening.try_under(
                drawn.tape, one, limit, expandable=drawn.expandable_segments, spills=spills
            )
            assert found == (peaks[0], completes)


def _alone(drawn: RandomRun, conditions: Conditions, refused: Refused) -> LeastLimit:
    run = rehearse_in_python(drawn.tape, conditions, expandable_segments=drawn.expandable_segments)
    return find_least_limit(run, refused=refused)


@pytest.mark.parametrize("first", range(0, 120, 30))
def test_limits_that_share_their_tries_are_those_of_each_search_alone(first: int) -> None:
    """The slow way: each of the three searched from the top, in a run of its own, in Python."""
    for number in range(first, first + 30):
        drawn = draw(number)
        halving = Halving(count=1 + number % 3, part=2 + number % 9, ends=number % 2 == 0)
        one = replace(drawn.conditions, workspace_bytes=halving, cast_workspace_bytes={})
        most = _shares(drawn.conditions, 125)
        try:
            slow = (
                _alone(drawn, one, Refused.WITHOUT),
                _alone(drawn, one, Refused.NEXT_PLAN),
                _alone(drawn, most, Refused.NEXT_PLAN),
            )
        except TapeError:
            continue
        quick = rehearsals.find_least_limits(
            drawn.tape, one, most, expandable_segments=drawn.expandable_segments
        )
        assert quick == slow, number


@needs_core
def test_a_sibling_is_found_for_many_runs_and_outlives_its_name() -> None:
    found = 0
    for number in range(60):
        drawn = draw(number)
        one = _shares(drawn.conditions, 100)
        run = rehearse(drawn.tape, one, expandable_segments=drawn.expandable_segments)
        twin = run.like(drawn.others)
        del run
        if twin is not None:
            found += 1
            slow = rehearse_in_python(
                drawn.tape, drawn.others, expandable_segments=drawn.expandable_segments
            )
            assert twin.warm_reserved_peak_bytes() == slow.warm_reserved_peak_bytes()
            assert list(twin.trace.marks) == list(slow.trace.marks)
    assert found >= 15


@needs_core
def test_a_search_stands_for_scratch_of_other_sizes_where_it_goes_alike() -> None:
    assert sum(taken_over(number) for number in range(80)) >= 30


@needs_core
def test_what_a_search_does_not_answer_is_asked_of_the_run_itself() -> None:
    asked = 0
    for number in range(40):
        drawn = draw(number)
        first, *others = kin(drawn.conditions, number)
        run = rehearse(drawn.tape, first)
        if not run.most_wanted_bytes:
            continue
        find_least_limit(run, refused=Refused.NEXT_PLAN)
        for conditions in others:
            twin = run.like(conditions)
            if twin is None or isinstance(twin, native.NativeRehearsal):
                continue
            asked += 1
            slow = rehearse_in_python(drawn.tape, conditions)
            half = slow.most_wanted_bytes // 2
            assert twin.trace.marks == slow.trace.marks
            assert str(twin.attempt(half)) == str(slow.attempt(half))
            assert twin.warm_reserved_peak_bytes() == slow.warm_reserved_peak_bytes()
    assert asked >= 10


def test_a_run_that_shares_a_rehearsal_in_python_says_what_its_own_would_say() -> None:
    shared = 0
    for number in range(120):
        drawn = draw(number)
        first, *others = kin(drawn.conditions, number)
        run = rehearse_in_python(drawn.tape, first)
        for conditions in others:
            twin = run.like(conditions)
            if twin is None or twin is run:
                continue
            shared += 1
            slow = rehearse_in_python(drawn.tape, conditions)
            assert list(map(str, answers(twin, number))) == list(map(str, answers(slow, number)))
    assert shared >= 80


def _figures(question: Question) -> None:
    (job,) = make_jobs([question.pipeline], CATALOG, {})
    engine = engine_of(job.pipeline)
    card = CATALOG.card(question.card).candidates[0]
    try:
        asked = override(job, question.settings)
        judged = engine.judge(asked, card, card.total_bytes)
    except VramplanError as problem:
        with pytest.raises(type(problem)):
            engine.grader(override(job, question.settings))(card, card.total_bytes)
        return
    graded = engine.grader(asked)(card, card.total_bytes)
    assert graded.kind == judged.kind, question
    assert graded.need == judged.estimate.need, question
    assert graded.is_split == judged.is_split, question
    assert graded.layers == (judged.layers or judged.estimate.layers), question


@pytest.mark.parametrize("number", range(12))
def test_a_grade_is_the_judgement(number: int) -> None:
    _figures(draw_question(31, number, CATALOG))


@needs_core
def test_a_sibling_goes_when_nobody_holds_it() -> None:
    """A run takes megabytes, so it must not wait for a look through all objects."""
    drawn = next(one for one in map(draw, range(100)) if not one.expandable_segments)
    run = rehearse(drawn.tape, _shares(drawn.conditions, 100))
    twin = run.like(_shares(drawn.conditions, 99))
    assert twin is not None
    gone = weakref.ref(twin)
    gc.disable()
    try:
        del twin
        assert gone() is None
    finally:
        gc.enable()


@needs_core
def test_a_sibling_that_has_joined_its_base_asks_it_for_tries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Scratch is taken before tens of thousands of requests that are the same in both runs."""
    asked: list[int] = []
    attempt = native.NativeRehearsal._attempt

    def counted(
        self: native.NativeRehearsal, limit_bytes: int, refused: Refused
    ) -> tuple[int, ReplayOutOfMemory | None]:
        asked.append(id(self))
        return attempt(self, limit_bytes, refused)

    monkeypatch.setattr(native.NativeRehearsal, "_attempt", counted)
    pipeline = of_torch(open_target("llava-1.5-7b-hf").pipeline)
    tape = read_checked_tape(find_tape(pipeline))
    settings = {**pipeline.defaults, "new_tokens": 12, "prompt_tokens": 64}
    conditions = conditions_at(pipeline, settings, "8.6", tape)
    base = rehearse(tape, _shares(conditions, 100))
    others = _shares(conditions, 125)
    twin = base.like(others)
    assert twin is not None
    slow = rehearse_in_python(tape, others)
    assert list(twin.trace.marks) == list(slow.trace.marks)
    for refused in Refused:
        least = find_least_limit(twin, refused=refused)
        assert least == find_least_limit(slow, refused=refused)
        assert twin.failure(least.limit_bytes - 1, refused=refused) is not None
        assert id(base) in asked
        tried = len(asked)
        base.attempt(least.limit_bytes - 1, refused=refused)  # which it was asked just now
        assert len(asked) == tried
