"""A plan: what makes it fit, what that saves and costs, and what to type."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vramplan.budget.pace import HOST_BYTES_PER_S, PCIE_BYTES_PER_S
from vramplan.budget.plan import Largest, Option, Plan
from vramplan.model import Settings, VerdictKind
from vramplan.quick_typing import TYPE_CHECKING
from vramplan.setting_values import SIZES

if TYPE_CHECKING:
    from vramplan.report.look import Look
    from vramplan.report.rows import Table
    from vramplan.report.serial import Json

#: what the times rest on
TIME_NOTE = (
    "time is an estimate from bandwidth alone, beside the run as it was asked for on a card of "
    "this bandwidth with room for it: what is computed takes longer than what is moved, so that "
    f"offload weighs less than shown; {PCIE_BYTES_PER_S / 1e9:.0f} GB/s over PCIe and "
    f"{HOST_BYTES_PER_S / 1e9:.0f} GB/s of system memory are assumed"
)


def render(plan: Plan, look: Look, only: str | None = None) -> str:
    """Return the plan in a format; `only` the largest value of a size is shown where one is named.

    JSON has the same fields then, without changes.
    """
    if only and look.format != "json":
        return largest_words(only, plan.largest[only]) + "\n"
    return look.draw(
        {
            "table": lambda: _draw(plan, look),
            "json": lambda: _as_json(plan, look),
            "markdown": lambda: _mark(plan),
        }
    )


def render_project(plans: Sequence[Plan], judged: int, look: Look) -> str:
    """Return the plans of a project's failures one after the other, of `judged` verdicts."""
    if look.format == "json":
        from vramplan.report.serial import to_json

        whole: dict[str, Json] = {"judged": judged, "plans": [plan_result(one) for one in plans]}
        return to_json(look.command, whole)
    if not plans:
        return "nothing to change: all of vramplan.yaml passes\n"
    shown = "\n\n".join(render(plan, look).rstrip("\n") for plan in plans)
    last = _closing(plans, look.width)
    return f"{shown}\n\n{last}\n"


def _closing(plans: Sequence[Plan], width: int) -> str:
    """Return what to do with the ways that were shown."""
    from vramplan.report.text import wrap

    if not any(plan.options for plan in plans):
        words = "nothing makes these fit: take another target or a larger card into vramplan.yaml"
    else:
        words = (
            "write a way's TARGET into vramplan.yaml in the place of the one it is for, and the "
            "lines above it into your program; then: vramplan check"
        )
    return "\n".join(wrap(words, width))


# ------------------------------------------------------------------------------------------- words
def headline(plan: Plan) -> str:
    """Return what it is about, the verdict as it is, and how it misses."""
    from vramplan.report import phrases

    verdict = plan.verdict
    judged = phrases.judged(verdict)
    where = f"{phrases.name(verdict.card)} ({judged})" if judged else phrases.name(verdict.card)
    chosen = phrases.differing(verdict.pipeline, verdict.asked)
    what = phrases.called(verdict.pipeline, verdict.asked) + (f" ({chosen})" if chosen else "")
    return f"{what} on {where}: {phrases.verdict(verdict.kind)}"


def summary(plan: Plan) -> str:
    """Return the answer in a sentence."""
    from vramplan.report import phrases

    if not plan.is_needed:
        left = phrases.available(plan.verdict.headroom_bytes)
        word = "fits" if plan.verdict.kind is VerdictKind.FITS else "is tight"
        return f"it {word} as it is, with {left} to spare: nothing to change"
    if plan.options:
        kinds = {option.verdict.kind for option in plan.options}
        what = "fits" if kinds == {VerdictKind.FITS} else "is tight"
        count = len(plan.options)
        ways = "one way" if count == 1 else f"{count} ways, cheapest first"
        return f"it {what} in {ways}"
    whole = plan.everything
    start = "it is tight as it is, and" if plan.succeeds else "it"
    judged = phrases.judged(plan.verdict)
    # a class is judged by the worst of its cards, often older by far than the reader's own
    elsewhere = f"; that is for {judged}: name your card where it is another" if judged else ""
    if whole is None:
        return f"{start} cannot be made to fit: no setting is left to change{elsewhere}"
    missing = phrases.need(plan.missing_bytes or 0)
    where = "" if whole.verdict.kind.is_failure else " at the high end of the estimate"
    misses = f"with everything below it misses by {missing}{where}{elsewhere}"
    return f"{start} cannot be made to fit: {misses}"


def largest_words(name: str, found: Largest | None) -> str:
    """Return ``image 544x544 (needs 3,431 MiB of 3,712 MiB)``, or that none fits."""
    from vramplan.report import phrases

    if found is None:
        return f"{name}: none fits"
    need = phrases.need(found.verdict.need.expected_bytes)
    budget = phrases.available(found.verdict.budget_bytes)
    ends = "; for larger ones nothing was recorded" if found.is_last_known else ""
    return f"{name} {phrases.value(found.value)} (needs {need} of {budget}{ends})"


def sizes_sentence(plan: Plan) -> str:
    """Return the largest of each size that fits with all else as it is; empty without any."""
    told = [largest_words(name, plan.largest[name]) for name in SIZES if name in plan.largest]
    return "; ".join(told)


def smallest_sentence(plan: Plan) -> str:
    """Return the smallest class and card on which it fits as it is; empty where nobody asked."""
    from vramplan.report import phrases

    if plan.smallest is None:
        return ""
    found = plan.smallest
    if found.card is None and found.class_name is None:
        return "on no card of the catalogue"
    return ", ".join(
        words
        for words in (
            f"the class {phrases.name(found.class_name)}" if found.class_name else "",
            f"the card {phrases.name(found.card)}" if found.card else "",
        )
        if words
    )


def _facts(plan: Plan) -> list[tuple[str, str]]:
    told = (("largest that fits", sizes_sentence(plan)), ("fits as it is", smallest_sentence(plan)))
    return [(label, said) for label, said in told if said]


def option_table(plan: Plan) -> Table:
    """Return a row an option, numbered: the settings, the verdict, what it saves, and its time."""
    from vramplan.report import phrases
    from vramplan.report.colour import verdict_tone
    from vramplan.report.rows import cell, table, without_empty
    from vramplan.report.trade_off import times

    rows = []
    for number, option in enumerate(plan.options, start=1):
        kind = option.verdict.kind
        rows.append(
            (
                cell(str(number)),
                cell(phrases.settings(option.settings)),
                cell(phrases.verdict(kind), tone=verdict_tone(kind)),
                cell(phrases.need(option.need_bytes)),
                cell(phrases.nearest(plan.saving_bytes(option))),
                cell(phrases.available(option.verdict.headroom_bytes)),
                cell(times(plan.slowdown(option))),
            )
        )
    whole = table("way#, settings!, verdict, need#, saves#, to spare#, time#", rows)
    return without_empty(whole, "time")  # of several side by side nobody knows it


def _front_sentence(plan: Plan) -> str:
    from vramplan.report.trade_off import on_the_front

    numbers = ", ".join(map(str, on_the_front(plan)))
    return f"no other way needs less memory and is no slower than: {numbers}"


# --------------------------------------------------------------------------------------- a terminal
def _draw(plan: Plan, look: Look) -> str:
    from vramplan.report import phrases
    from vramplan.report.colour import Tone, paint, verdict_tone
    from vramplan.report.grid import draw_table
    from vramplan.report.text import clean, wrap
    from vramplan.report.trade_off import draw_trade_off

    width, colour = look.width, look.colour
    tone = verdict_tone(plan.verdict.kind)
    drawn = [paint(line, tone, colour) for line in wrap(headline(plan), width)]
    drawn += wrap(clean(plan.verdict.reason), width)
    drawn += [
        paint(line, Tone.DIM, colour)
        for line in wrap(phrases.settings(plan.settings), width)
        if line
    ]
    drawn += ["", *(paint(line, Tone.STRONG, colour) for line in wrap(summary(plan), width))]
    if plan.options:
        drawn += ["", *draw_table(option_table(plan), width=width, colour=colour)]
    for number, option in enumerate(plan.options, start=1):
        drawn += ["", *_draw_option(f"{number}. ", option, width, colour)]
    if not plan.options and plan.everything is not None:
        drawn += ["", *_draw_option("", plan.everything, width, colour)]
    beside = plan.beside
    drawn += [""] if beside else []
    for advice in beside:
        said = f"{clean(advice.change)} · {clean(advice.effect)} · cost: {clean(advice.cost)}"
        drawn += _hanging("try  ", said, width, colour)
    picture = draw_trade_off(plan, width=width, colour=colour) if len(plan.options) > 1 else []
    if picture:
        drawn += ["", paint("memory against time", Tone.STRONG, colour), *picture]
        drawn += wrap(f"o is the run as it was asked for; {_front_sentence(plan)}", width)
    facts = _facts(plan)
    if facts:
        drawn.append("")
        for label, said in facts:
            drawn += _hanging(f"{label}  ", said, width, colour)
    notes = [f"not tried: {clean(left.line)} ({clean(left.why)})" for left in plan.left_out]
    if any(plan.slowdown(option) is not None for option in plan.options):
        notes.append(TIME_NOTE)
    if notes:
        drawn.append("")
    for note in notes:
        first, *rest = wrap(note, width - 2)
        lines = [f"- {first}", *(f"  {line}" for line in rest)]
        drawn += [paint(line, Tone.DIM, colour) for line in lines]
    return "\n".join(drawn) + "\n"


def _draw_option(label: str, option: Option, width: int, colour: bool) -> Iterator[str]:
    """Yield the lines to type, never broken, and the cost."""
    from vramplan.report.colour import Tone, paint
    from vramplan.report.text import clean, wrap

    indent = " " * len(label)
    for number, change in enumerate(option.changes):
        yield paint((indent if number else label) + clean(change.line), Tone.STRONG, colour)
    for line in wrap(f"cost: {clean(option.cost)}", width - len(indent)):
        yield paint(indent + line, Tone.DIM, colour)
    yield paint(indent + _targets_line(option), Tone.DIM, colour)


def _targets_line(option: Option) -> str:
    """Return the TARGETs with an option's settings, as a shell takes them, in one line."""
    import shlex

    from vramplan.report.text import clean

    label = "as TARGET: " if len(option.targets) == 1 else "as TARGETs: "
    return label + " ".join(shlex.quote(clean(target, 4_000)) for target in option.targets)


def _hanging(label: str, text: str, width: int, colour: bool) -> list[str]:
    from vramplan.report.colour import Tone, paint
    from vramplan.report.text import wrap

    first, *rest = wrap(text, max(width - len(label), 8))
    return [paint(label, Tone.STRONG, colour) + first, *(" " * len(label) + line for line in rest)]


# --------------------------------------------------------------------------------------- Markdown
def _mark(plan: Plan) -> str:
    from vramplan.report import markdown
    from vramplan.report.text import clean

    def say(text: str) -> str:
        return markdown.escape(clean(text))

    parts = [f"## {say(headline(plan))}", say(plan.verdict.reason), f"**{say(summary(plan))}**"]
    if plan.options:
        parts.append(markdown.render_table(option_table(plan)))
    shown = [(f"{number}. ", option) for number, option in enumerate(plan.options, start=1)]
    if not plan.options and plan.everything is not None:
        shown.append(("", plan.everything))
    for label, option in shown:
        lines = "\n".join(clean(change.line) for change in option.changes)
        block = f"{lines}\n{_targets_line(option)}".replace("```", "'''")
        parts += [f"{label}cost: {say(option.cost)}", f"```text\n{block}\n```"]
    parts += [
        f"- {say(advice.change)}: {say(advice.effect)}; cost: {say(advice.cost)}"
        for advice in plan.beside
    ]
    facts = _facts(plan)
    parts += [f"{label}: {say(said)}" for label, said in facts]
    notes = [f"not tried: {left.line} ({left.why})" for left in plan.left_out]
    if any(plan.slowdown(option) is not None for option in plan.options):
        notes.append(TIME_NOTE)
    if notes:
        parts.append("\n".join(f"- {say(note)}" for note in notes))
    return "\n\n".join(parts) + "\n"


# ------------------------------------------------------------------------------------------- JSON
def _as_json(plan: Plan, look: Look) -> str:
    from vramplan.report.serial import to_json

    return to_json(look.command, plan_result(plan))


def plan_result(plan: Plan) -> dict[str, Json]:
    """Return the result of `plan`."""
    from vramplan.report.serial import advice_object, largest_object

    verdict, smallest = plan.verdict, plan.smallest
    return {
        "pipeline": verdict.pipeline,
        "target": verdict.asked.text or verdict.pipeline,
        "card": verdict.card,
        "card_title": verdict.card_title,
        "judged_as": verdict.judged_as,
        "settings": _settings(plan.settings),
        "verdict": verdict.kind.value,
        "need_bytes": verdict.need.expected_bytes,
        "budget_bytes": verdict.budget_bytes,
        "headroom_bytes": verdict.headroom_bytes,
        "reason": verdict.reason,
        "succeeds": plan.succeeds,
        "changes": [_option_object(plan, option) for option in plan.options],
        "everything": (None if plan.everything is None else _option_object(plan, plan.everything)),
        "missing_bytes": plan.missing_bytes,
        "nearest": [advice_object(advice) for advice in plan.nearest],
        "smaller_file": (None if plan.smaller_file is None else advice_object(plan.smaller_file)),
        "left_out": [{"line": left.line, "why": left.why} for left in plan.left_out],
        "largest": largest_object(plan.largest),
        "smallest": {
            "class": None if smallest is None else smallest.class_name,
            "card": None if smallest is None else smallest.card,
        },
    }


def _option_object(plan: Plan, option: Option) -> dict[str, Json]:
    verdict, slower = option.verdict, plan.slowdown(option)
    return {
        "settings": _settings(option.settings),
        "line": option.line,
        "lines": [change.line for change in option.changes],
        "targets": list(option.targets),
        "cost": option.cost,
        "price": option.price,
        "need_bytes": option.need_bytes,
        "need_high_bytes": verdict.need.high_bytes,
        "saving_bytes": plan.saving_bytes(option),
        "headroom_bytes": verdict.headroom_bytes,
        "verdict": verdict.kind.value,
        "slowdown": None if slower is None else round(slower, 4),
        "is_on_front": plan.is_on_front(option),
    }


def _settings(chosen: Settings) -> dict[str, Json]:
    from vramplan.report.serial import settings_object

    return settings_object(chosen)
