"""What a report is about: targets, what a project describes, or the whole catalogue."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from vramplan.ask import check
from vramplan.ask.cards import DEFAULT_CLASSES
from vramplan.engines.door import Remark
from vramplan.errors import UsageError
from vramplan.model import SettingValue
from vramplan.searching import searching


def read_report(
    targets: Sequence[str],
    cards: Sequence[str],
    settings: Mapping[str, SettingValue],
    remark: Remark,
    *,
    is_all: bool = False,
    catalog: Sequence[str | Path] = (),
    mmproj: str | None = None,
    margin_bytes: int | None = None,
    other_bytes: int | None = None,
) -> tuple[check.Question, Callable[[check.Progress], check.Answer]]:
    """Return the question, and what answers it.

    Without targets ./vramplan.yaml is read, and without that, or with `is_all`, the catalogue. Of a
    whole catalogue what has no tape is counted: recording it would take half an hour. Raises as the
    readers of `check` do.
    """
    if is_all and targets:
        raise UsageError("--all is every pipeline", hint="leave the TARGETs out, or --all")
    if mmproj is not None and not targets:
        raise UsageError("--mmproj belongs to one model file", hint="name it as TARGET")
    if not (is_all or targets) and check.has_project():
        question = check.read_project(
            cards,
            settings,
            remark,
            catalog=catalog,
            margin_bytes=margin_bytes,
            other_bytes=other_bytes,
        )
        return question, lambda progress: check.answer(question, progress)
    chosen, margin = cards or DEFAULT_CLASSES, margin_bytes or 0
    if targets:
        asked = check.read_targets(
            targets,
            chosen,
            settings,
            remark,
            catalog=catalog,
            mmproj=mmproj,
            margin_bytes=margin,
            other_bytes=other_bytes,
        )
        return asked, lambda progress: check.answer(asked, progress)
    every = check.read_catalog(
        chosen, settings, remark, catalog=catalog, margin_bytes=margin, other_bytes=other_bytes
    )

    def answer(progress: check.Progress) -> check.Answer:
        with searching():
            return check.answer(every, progress)

    return every, answer
