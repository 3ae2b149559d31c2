"""What has changed since an earlier answer of `check`: verdict by verdict, and what is gone.

The earlier answer is the JSON of a `check` or a `report`. It may come from a stranger's branch: it
is bounded, and every field that is used is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vramplan.budget.difference import Became, Before, Comparison, Difference
from vramplan.codec import Json, JsonError, Limits, read_object
from vramplan.errors import UsageError
from vramplan.model import Verdict, VerdictKind

_LIMITS = Limits(text_bytes=32 << 20, parsed_bytes=192 << 20)
_MOST = 100_000
_COMMANDS = ("check", "report")
_KINDS = {kind.value: kind for kind in VerdictKind}
_LONGEST = 16_384


def read_base(path: Path) -> tuple[Before, ...]:
    """Return the verdicts of an earlier answer.

    Raises UsageError for a file that is none.
    """
    hint = "vramplan check --json -o base.json writes one"
    try:
        whole = read_object(path, _LIMITS)
    except JsonError as problem:
        raise UsageError(str(problem), hint=hint) from None
    if whole.get("command") not in _COMMANDS or whole.get("schema_version") != 1:
        raise UsageError(f"{path}: not the JSON of vramplan check", hint=hint)
    result = whole.get("result")
    listed = result.get("verdicts") if isinstance(result, dict) else None
    if not isinstance(listed, list) or len(listed) > _MOST:
        raise UsageError(f"{path}: no list of verdicts is in it", hint=hint)
    found = []
    for number, one in enumerate(listed):
        before = _before(one)
        if before is None:
            raise UsageError(f"{path}: result.verdicts[{number}] is no verdict", hint=hint)
        found.append(before)
    return tuple(found)


def _before(raw: Json) -> Before | None:
    if not isinstance(raw, dict):
        return None
    pipeline, card, kind = raw.get("pipeline"), raw.get("card"), raw.get("verdict")
    need, budget = raw.get("need_bytes"), raw.get("budget_bytes")
    name, target = raw.get("name"), raw.get("target", pipeline)
    texts = (pipeline, card, target)
    if not all(isinstance(text, str) and len(text) <= _LONGEST for text in texts):
        return None
    if (
        not isinstance(kind, str)
        or kind not in _KINDS
        or not _is_size(need)
        or not _is_whole(budget)
    ):
        return None
    return Before(
        pipeline=str(pipeline),
        target=str(target),
        name=name if isinstance(name, str) and len(name) <= _LONGEST else "",
        card=str(card),
        kind=_KINDS[kind],
        need_bytes=int(str(need)),
        budget_bytes=int(str(budget)),
    )


def _is_whole(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_size(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def compare_with(
    verdicts: Sequence[Verdict], base: Sequence[Before], place: str = ""
) -> Comparison:
    """Return what has become of each verdict since `base`, and which of those there are no more.

    What is compared is what goes by one name (a project's, else the pipeline's) on one card: of
    several first those at the same settings, then the others in their order.
    """
    left: dict[tuple[str, str], list[Before]] = {}
    for one in base:
        left.setdefault((one.label, one.card), []).append(one)
    found: dict[int, Before] = {}
    for is_same in (True, False):  # settings
        for number, verdict in enumerate(verdicts):
            there = left.get((verdict.asked.name or verdict.pipeline, verdict.card), [])
            target = verdict.asked.text or verdict.pipeline
            fitting = [one for one in there if not is_same or one.target == target]
            if number not in found and fitting:
                found[number] = fitting[0]
                there.remove(fitting[0])
    return Comparison(
        place=place,
        differences=tuple(
            _difference(verdict, found.get(number)) for number, verdict in enumerate(verdicts)
        ),
        gone=tuple(one for there in left.values() for one in there),
    )


def _difference(verdict: Verdict, before: Before | None) -> Difference:
    if before is None:
        return Difference(became=Became.NEW, before=None, need_bytes=None, budget_bytes=None)
    rank, was = verdict.kind.rank, before.kind.rank
    return Difference(
        became=Became.SAME if rank == was else Became.WORSE if rank > was else Became.BETTER,
        before=before,
        need_bytes=verdict.need.expected_bytes - before.need_bytes,
        budget_bytes=verdict.budget_bytes - before.budget_bytes,
    )
