"""The part of docs/accuracy.md on verdicts beside torch, on cards that are nearly too small.

Read from docs/torch_verdicts.jsonl, which `python -m tools.verdicts` writes; `tools.docs.accuracy`
puts it into the page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tools.docs.page import escape
from tools.verdicts.__main__ import SEED, read_lines

TITLE = "### Verdicts, on cards that are nearly too small"

Line = Mapping[str, Any]
_MIB = 1 << 20
#: per cent of a need that are lost where a budget is rounded to bytes
_BYTES = 0.001

_INTRODUCTION = """\
{cases} runs of {pipelines} pipelines, at settings drawn by a seed ({seed}) that no recording and no
rule was made from, each tried with several amounts of free memory: what a card of 4 to 24 GB has,
or about what the run needs, and 1 % more and less than the least that `vramplan check` expects, the
middle of the CUDA context's band included. torch {torch} with cuDNN {cudnn} ran each in a process
of its own. `python -m tools.verdicts` asks, and goes on where it stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """How verdicts came out; `false_fits` are the cases that were said to fit, and failed."""

    runs: int
    near: int
    verdicts: Mapping[str, int]
    false_fits: list[Line]
    false_ooms: int
    tight_fails: int


def count(lines: Sequence[Line]) -> Counted:
    """Return how the verdicts of some cases came out."""
    tried = [(line, one) for line in lines for one in line["tried"]]
    verdicts: dict[str, int] = {}
    for _, one in tried:
        verdicts[one["verdict"]] = verdicts.get(one["verdict"], 0) + 1
    return Counted(
        runs=len(tried),
        near=sum(_is_near(line, one) for line, one in tried),
        verdicts=verdicts,
        false_fits=[line for line, one in tried if one["verdict"] == "fits" and one["failure"]],
        false_ooms=sum(one["verdict"] == "oom" and not one["failure"] for _, one in tried),
        tight_fails=sum(one["verdict"] == "tight" and bool(one["failure"]) for _, one in tried),
    )


def _is_near(line: Line, one: Line) -> bool:
    return bool(abs(one["budget"] / line["ours"]["need"][1] - 1) <= 0.1)


def off_by(line: Line) -> int | None:
    """Return within how many per cent our least need is torch's: 1 or 3; None where it is not."""
    need = line["ours"]["need"][1]
    runs = [one["budget"] / need for one in line["tried"] if not one["failure"]]
    fails = [one["budget"] / need for one in line["tried"] if one["failure"]]
    for percent in (1, 3):
        slack = (percent + _BYTES) / 100
        if min(runs, default=2) <= 1 + slack and max(fails, default=0) >= 1 - slack:
            return percent
    return None


def render() -> str:
    """Return the section; nothing before there are cases."""
    lines = read_lines()
    if not lines:
        return ""
    counted = count(lines)
    versions = lines[0]["versions"]
    number = int(versions["cudnn"])
    about = _INTRODUCTION.format(
        cases=len(lines),
        pipelines=len({one["pipeline"] for one in lines}),
        seed=SEED,
        torch=escape(versions["torch"]),
        cudnn=f"{number // 10000}.{number // 100 % 100}.{number % 100}",
    )
    return "\n\n".join([TITLE, about, _said(counted, lines), _table(lines)])


def _said(counted: Counted, lines: Sequence[Line]) -> str:
    fits, ooms = counted.verdicts.get("fits", 0), counted.verdicts.get("oom", 0)
    tight = counted.verdicts.get("tight", 0)
    offs = [off_by(one) for one in lines]
    within = sum(off == 1 for off in offs), sum(off is not None for off in offs)
    peaks = [
        f"{name} equal to within 1 MiB in {_equal(lines, name)}, worst {_worst(lines, name)}"
        for name in ("allocated", "reserved")
    ]
    least = f"within 1 % in {within[0]} of {len(lines)}, within 3 % in {within[1]}"
    said = (
        f"**{counted.runs} verdicts**, {counted.near} of them within 10 % of the need.",
        f"*fits* {fits} times, and {len(counted.false_fits)} of those ran out of memory.",
        f"*oom* {ooms} times, and {counted.false_ooms} of those completed.",
        f"*tight* {tight} times, and {counted.tight_fails} of those ran out of memory.",
        f"The least need is torch's {least}.",
        f"Peaks with room: {'; '.join(peaks)}.",
    )
    return "\n".join(f"- {one}" for one in said)


def _equal(lines: Sequence[Line], name: str) -> int:
    return sum(abs(one["ours"][name] - one["torch"][name]) <= _MIB for one in lines)


def _worst(lines: Sequence[Line], name: str) -> str:
    return _percent(max((_off(one, name) for one in lines), key=abs))


def _off(line: Line, name: str) -> float:
    return float(line["ours"][name] / line["torch"][name] - 1)


def _percent(share: float) -> str:
    return f"{share * 100:+.2f} %".replace("-", "\N{MINUS SIGN}")


def _table(lines: Sequence[Line]) -> str:
    """Return the cases where a verdict was false, or ours is not within 1 % of torch's."""
    rows = [_row(one) for one in lines if off_by(one) != 1 or _is_false(one)]
    if not rows:
        return "No verdict was false, and every least need is torch's within 1 %."
    head = (
        "Those that are not within 1 %, or of which a verdict was false:\n\n"
        "| case | pipeline | on | allocated off | reserved off | completed with | failed with |\n"
        "|--:|---|---|--:|--:|--:|--:|"
    )
    return "\n".join([head, *rows])


def _is_false(line: Line) -> bool:
    false = {("fits", True), ("oom", False)}
    return any((one["verdict"], bool(one["failure"])) in false for one in line["tried"])


def _row(line: Line) -> str:
    need = line["ours"]["need"][1]
    runs, fails = (
        ", ".join(_shares(need, line["tried"], is_failure=failed)) for failed in (False, True)
    )
    offs = [_percent(_off(line, name)) for name in ("allocated", "reserved")]
    cells = [str(line["number"]), escape(_name(line)), line["compute_capability"], *offs]
    return f"| {' | '.join([*cells, runs or '-', fails or '-'])} |"


def _shares(need: int, tried: Iterable[Line], *, is_failure: bool) -> list[str]:
    found = sorted(one["budget"] / need for one in tried if bool(one["failure"]) is is_failure)
    return [f"{share:.3f}" for share in found]


#: settings that tell one case of a pipeline from another
_TOLD = ("mode", "image", "batch", "prompt_tokens", "dtype", "attention", "offload")


def _name(line: Line) -> str:
    told = [line["settings"][key] for key in _TOLD if key in line["settings"]]
    return f"{line['pipeline']}, {' '.join(told)}"
