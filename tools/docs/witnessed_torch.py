"""The part of docs/accuracy.md that is about torch itself on cards that are not there.

Read from docs/torch_witness.json, which tools/torch_witness.py writes; `generate_accuracy.py` puts
it into the page.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tools.docs.page import ROOT, escape

TITLE = "## PyTorch itself as witness"

_INTRODUCTION = """\
What torch {torch} with cuDNN {cudnn} allocates and reserves on cards that are not there, beside
ours: {cases} cases of the catalogue's pipelines on {cards} cards, one of each architecture (compute
capability {capabilities}). The same program is run once in a fresh process, and the highest figures
of the whole run are compared, in MiB. Made again by `{command}`; `vramplan profile TARGET --pretend
CARD` asks the same of one. Off is ours less torch's, in per cent of torch's;
[a page of its own](pretended-card.md#where-the-estimate-is-off) says why they differ."""

_HEAD = (
    "| pipeline | on | allocated: torch | ours | off | reserved: torch | ours | off |\n"
    "|---|---|--:|--:|--:|--:|--:|--:|"
)
_MIB = 1 << 20
#: settings that tell one case of a pipeline from another
_TOLD = ("mode", "image", "steps", "batch", "dtype")

Case = Mapping[str, Any]


def read_cases(path: Path = ROOT / "docs" / "torch_witness.json") -> dict[str, Any]:
    """Return what the script wrote."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def render() -> str:
    """Return the section."""
    witness = read_cases()
    cases = [one for one in witness["cases"] if one["failure"] is None]
    failed = [one for one in witness["cases"] if one["failure"] is not None]
    versions = cases[0]["versions"]
    number = int(versions["cudnn"])
    about = _INTRODUCTION.format(
        torch=escape(versions["torch"]),
        cudnn=f"{number // 10000}.{number // 100 % 100}.{number % 100}",
        cases=len(cases),
        cards=len({one["card"] for one in cases}),
        capabilities=_list(sorted({one["compute_capability"] for one in cases}, key=float)),
        command=witness["command"],
    )
    table = "\n".join([_HEAD, *(_row(group) for group in _groups(cases))])
    parts = [TITLE, about, *(_summary(cases, name) for name in ("allocated", "reserved"))]
    if failed:
        said = ", ".join(f"{_name(one)} on {one['card']} ({one['failure']})" for one in failed)
        parts.append(escape(f"Not run to their end: {said}."))
    return "\n\n".join([*parts, table])


def _summary(cases: Sequence[Case], name: str) -> str:
    offs = [_off(one, name) for one in cases]
    sizes = sorted(abs(one) for one in offs)
    below = sum(one < -0.0005 for one in offs)
    equal = sum(abs(one[name]["ours"] - one[name]["torch"]) <= _MIB for one in cases)
    return (
        f"**{name.capitalize()}**: {equal} of {len(cases)} equal to within 1 MiB; median off "
        f"{_percent(median(sizes))}, worst {_percent(max(offs, key=abs))}; ours is below torch's "
        f"in {below}."
    )


def _groups(cases: Sequence[Case]) -> Iterable[list[Case]]:
    """Yield the cases that differ by nothing but the card, and have the same figures."""
    found: dict[str, list[Case]] = {}
    for one in cases:
        key = json.dumps([one["pipeline"], one["settings"], one["allocated"], one["reserved"]])
        found.setdefault(key, []).append(one)
    order = {name: place for place, name in enumerate(dict.fromkeys(map(_name, cases)))}
    return sorted(found.values(), key=lambda group: order[_name(group[0])])


def _row(group: Sequence[Case]) -> str:
    one = group[0]
    where = ", ".join(sorted((case["compute_capability"] for case in group), key=float))
    cells = [escape(_name(one)), where]
    for name in ("allocated", "reserved"):
        pair = one[name]
        cells += [_mib(pair["torch"]), _mib(pair["ours"]), _percent(_off(one, name))]
    return f"| {' | '.join(cells)} |"


def _name(one: Case) -> str:
    told = [f"{one['settings'][key]}" for key in _TOLD if key in one["settings"]]
    return f"{one['pipeline']}, {' '.join(told)}"


def _off(one: Case, name: str) -> float:
    pair = one[name]
    return float(pair["ours"] / pair["torch"] - 1)


def _mib(size: int) -> str:
    return f"{size / _MIB:,.1f}"


def _percent(share: float) -> str:
    if abs(share) < 0.00005:
        return "0"
    return f"{share * 100:+.2f} %".replace("-", "\N{MINUS SIGN}")


def _list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
