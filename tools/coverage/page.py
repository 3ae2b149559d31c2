"""The page of what was recorded: how many of each kind, and why a class was not."""

from __future__ import annotations

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
class. Pipelines have the dummy components of diffusers' own tests; models are their class's default
config with two layers. *Recorded* means that the run was followed from its first allocation to its
last, and that its tape is one. What is not recorded is counted, and the rest assumed
([any model](any-model.md)).

Made by `python -m tools.coverage`; what was not tried yet is listed as that.
"""


def write_page(
    subjects: Sequence[Subject], results: Sequence[Result], versions: Mapping[str, str]
) -> str:
    """Return the page of all that was to be tried."""
    known = {(one.kind, one.name): one for one in results}
    lines = [_HEAD, _versions(versions), "", *_summary(subjects, known)]
    for kind, title in TITLES.items():
        mine = [one for one in subjects if one.kind == kind]
        if mine:
            lines += ["", f"## {title}", "", *_rows(mine, known)]
    return "\n".join(lines) + "\n"


def _versions(versions: Mapping[str, str]) -> str:
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"Versions: {said}."


def _summary(subjects: Sequence[Subject], known: Mapping[tuple[str, str], Result]) -> Iterator[str]:
    yield "| | classes | tried | built | recorded | of those built |"
    yield "|---|--:|--:|--:|--:|--:|"
    for kind, title in TITLES.items():
        mine = [one for one in subjects if one.kind == kind]
        found = [known[kind, one.name] for one in mine if (kind, one.name) in known]
        stages = Counter(one.stage for one in found)
        built, recorded = len(found) - stages["none"], stages["recorded"]
        share = f"{recorded * 100 // built} %" if built else "-"
        if mine:
            yield f"| {title} | {len(mine)} | {len(found)} | {built} | {recorded} | {share} |"


def _rows(subjects: Sequence[Subject], known: Mapping[tuple[str, str], Result]) -> Iterator[str]:
    yield "| class | |"
    yield "|---|---|"
    order = {"none": 1, "built": 0, "recorded": 3}
    found = [(known.get((one.kind, one.name)), one) for one in subjects]
    for result, one in sorted(
        found, key=lambda row: (2 if row[0] is None else order[row[0].stage], row[1].class_name)
    ):
        yield f"| `{one.class_name}` | {_state(result)} |"


def _state(result: Result | None) -> str:
    if result is None:
        return "not tried"
    if result.stage == "recorded":
        return f"recorded, by {result.how}"
    reason = result.reason.replace("|", "/").replace("<", "(").replace("`", "'").replace("*", "·")
    return f"{'not built' if result.stage == 'none' else 'not recorded'}: {reason}"
