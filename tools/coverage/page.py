"""The page of what was recorded: how many of each kind, and why a class was not."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from tools.coverage.results import Result, Subject

TITLES: Mapping[str, str] = {
    "pipeline": "Pipelines of diffusers",
    "causal": "Language models of transformers",
    "image-text": "Models of transformers that see",
    "speech": "Models of transformers that hear",
    "seq2seq": "Encoders and decoders of transformers",
    "encoder": "Base models of transformers",
}
_HEAD = """\
# What is recorded on the spot

Every class that a user may name, tried: built small, and recorded by the recorder that knows no
class. Pipelines have the dummy components of diffusers' own tests, or borrow those of their
relatives; models are their class's default config, with two layers where it can be built with two.
Where its parts are the defaults of several classes and do not fit together (a vision tower wider
than the text model, an image of fewer patches than are pooled), they are made to.

- *Cannot be built* is what its class refuses to make of its default config, or for which there are
  no dummies, or a library is missing here. *Cannot run* is what is built and does not run on a CPU
  with real data either, given the same: its default config, or its dummies, do not fit together.
  Its list has the real run's error. Neither is a failure of the recorder's, nor a recording; *runs*
  is what is left of those tried.
- *Recorded* means that the run was followed from its first allocation to its last, and that its
  tape is one. What is not recorded is counted, and the rest assumed ([any model](any-model.md)).
- *Compared* means that the same small run was made once more with real data, on a device that
  computes what the recorder only follows: *equal* has the same sizes in the same order, and so the
  same peak.

Made by `python -m tools.coverage`; what was not tried yet is listed as that.
"""
#: groups of results, in their order, each with what is said above it
_GROUPS: Mapping[str, str] = {
    "equal": "Recorded, and equal to the run with real data",
    "peak": "Recorded; the same peak as the run with real data, another list",
    "differs": "Recorded; another peak than the run with real data",
    "alone": "Recorded, not compared",
    "built": "Not recorded",
    "broken": "Cannot run: it does not with real data either",
    "none": "Cannot be built",
    "untried": "Not tried",
}
#: what is said of each of these by itself
_TOLD = ("peak", "differs", "built", "broken", "none")
#: words in the reason of what was built, and tried without a recorder
_EITHER = ("nor does", "do not run on a CPU either")


def write_page(
    subjects: Sequence[Subject], results: Sequence[Result], versions: Mapping[str, str]
) -> str:
    """Return the page of all that was to be tried."""
    known = {(one.kind, one.name): one for one in results}
    lines = [_HEAD, _versions(versions), "", *_summary(subjects, known)]
    for kind, title in TITLES.items():
        mine = [one for one in subjects if one.kind == kind]
        if mine:
            lines += ["", f"## {title}", *_groups(mine, known)]
    return "\n".join(lines) + "\n"


def _versions(versions: Mapping[str, str]) -> str:
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"Versions: {said}."


def _summary(subjects: Sequence[Subject], known: Mapping[tuple[str, str], Result]) -> Iterator[str]:
    yield (
        "| | classes | tried | cannot be built | cannot run | runs | recorded | of those that run "
        "| compared | equal | equal peak |"
    )
    yield "|---" + "|--:" * 10 + "|"
    whole: Counter[str] = Counter()
    for kind, title in TITLES.items():
        groups = Counter(
            _group(known.get((kind, one.name))) for one in subjects if one.kind == kind
        )
        whole += groups
        if groups:
            yield _row(title, groups)
    yield _row("All", whole)


def _row(title: str, groups: Counter[str]) -> str:
    classes = groups.total()
    tried = classes - groups["untried"]
    runs = tried - groups["none"] - groups["broken"]
    recorded = runs - groups["built"]
    compared = recorded - groups["alone"]
    equal, peak = groups["equal"], groups["equal"] + groups["peak"]
    return (
        f"| {title} | {classes} | {tried} | {groups['none']} | {groups['broken']} | {runs} "
        f"| {recorded} | {_share(recorded, runs)} | {compared} "
        f"| {_share(equal, compared)} | {_share(peak, compared)} |"
    )


def _share(some: int, of: int) -> str:
    return f"{some * 100 // of} %" if of else "-"


def _group(result: Result | None) -> str:
    if result is None:
        return "untried"
    if result.stage != "recorded":
        return "broken" if any(one in result.reason for one in _EITHER) else result.stage
    starts = {"equal": "equal", "peak equal": "peak", "differs": "differs"}
    return next(
        (group for word, group in starts.items() if result.fidelity.startswith(word)), "alone"
    )


def _groups(subjects: Sequence[Subject], known: Mapping[tuple[str, str], Result]) -> Iterator[str]:
    found: dict[str, list[tuple[Subject, Result | None]]] = {}
    for one in sorted(subjects, key=lambda one: one.class_name):
        result = known.get((one.kind, one.name))
        found.setdefault(_group(result), []).append((one, result))
    for group, title in _GROUPS.items():
        if rows := found.get(group):
            yield from ("", f"### {title} ({len(rows)})", "")
            yield from _table(rows) if group in _TOLD else _list(rows)


def _list(rows: Sequence[tuple[Subject, Result | None]]) -> Iterator[str]:
    yield textwrap.fill(
        ", ".join(f"`{one.class_name}`" for one, _ in rows),
        100,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _table(rows: Sequence[tuple[Subject, Result | None]]) -> Iterator[str]:
    yield "| class | |"
    yield "|---|---|"
    for one, result in rows:
        said = (result.fidelity if result.stage == "recorded" else result.reason) if result else ""
        plain = said.replace("|", "/").replace("<", "(").replace("`", "'").replace("*", "·")
        yield f"| `{one.class_name}` | {plain} |"
