"""What became of a program on pretended cards, in every format."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Iterable, Sequence

from vramplan.measurement.tried import (
    Advice,
    CodePlace,
    FailedAllocation,
    Holder,
    Trial,
    TrialOutcome,
)
from vramplan.report import phrases
from vramplan.report.colour import Tone
from vramplan.report.look import Look
from vramplan.report.rows import Cell, Table, cell, table
from vramplan.report.serial import Json, to_json
from vramplan.report.sheet import Sheet, render_sheet
from vramplan.report.text import clean
from vramplan.units import MIB

_LONGEST = 300

#: what a pretended card does not have, by the functions that are asked for it
_MISSING = {
    "cudaStreamBeginCaptureToGraph": "CUDA graphs with conditions",
    "cudaGraph": "CUDA graphs of this kind",
    "cudaIpc": "memory that processes share",
    "cusolver": "linear algebra by cuSOLVER",
    "cusparse": "sparse products by cuSPARSE",
    "cufft": "transforms by cuFFT",
    "cudnnGetRNN": "recurrent networks by cuDNN",
    "cuLink": "kernels that are linked on the spot",
    "cudaMallocManaged": "managed memory (paged optimisers)",
}
_LIBRARIES = {
    "cuda": "CUDA",
    "cudnn": "cuDNN",
    "nccl": "NCCL",
    "cufft": "cuFFT",
    "cusolver": "cuSOLVER",
}
_COMPILERS = ("TritonMissing", "BackendCompilerFailed", "InductorError")
_WORDS = {
    TrialOutcome.COMPLETES: ("✓ completes", Tone.FITS),
    TrialOutcome.OUT_OF_MEMORY: ("✗ out of memory", Tone.OOM),
    TrialOutcome.FAILED: ("✗ failed", Tone.OOM),
}


def render(
    trials: Sequence[Trial],
    look: Look,
    *,
    command: Sequence[str],
    smallest: Trial | None = None,
    seeks: bool = False,
) -> str:
    """Return what became of a program; `smallest` is the least card on which it completes.

    With `seeks` that was the question.
    """
    if look.format == "json":
        return to_json(look.command, _result(trials, command, smallest, seeks=seeks))
    program = clean(shlex.join(command), _LONGEST)
    sentences = [*_sought(trials, smallest, seeks=seeks), *_sentences(trials)]
    if look.format == "html":
        from vramplan.report.trials_html import render_trials

        return render_trials(
            trials,
            program=program,
            headline=_sought(trials, smallest, seeks=seeks),
            peaks=_peaks(trials),
            chapters=[_chapter(one) for one in trials],
            notes=_remarks(trials),
        )
    chosen = smallest or trials[-1]
    sheet = Sheet(
        heading=program,
        lines=[*sentences, *_remarks(trials)],
        tables=[("", _peaks(trials)), *_held(chosen), *_advised(chosen)],
    )
    return render_sheet(sheet, look)


# ---------------------------------------------------------------------------------------- people
def _sought(trials: Sequence[Trial], smallest: Trial | None, *, seeks: bool) -> list[str]:
    if not seeks:
        return []
    if smallest is not None:
        return [f"the smallest class on which it completes: {phrases.name(smallest.card)}"]
    if trials[-1].outcome is TrialOutcome.FAILED:
        return []
    return ["it completes on none of the classes that were tried"]


def _sentences(trials: Sequence[Trial]) -> list[str]:
    return [f"{phrases.name(one.card_title)}: {sentence(one)}" for one in trials]


def _remarks(trials: Sequence[Trial]) -> list[str]:
    """Return what is to be known of the figures, each once."""
    return list(dict.fromkeys(remark for one in trials for remark in remarks(one)))


def _chapter(one: Trial) -> dict[str, object]:
    """Return what a page says of one card, its picture aside."""
    word, tone = _WORDS[one.outcome]
    what = sentence(one)
    return {
        "word": word,
        "tone": tone.value,
        "told": "" if what == "completes" else f"{what[0].upper()}{what[1:]}.",
        "advice": [_advice(advice) for advice in one.advice],
        "tables": [(f"{head[0].upper()}{head[1:]}", table) for head, table in _held_apart(one)],
    }


def sentence(one: Trial) -> str:
    """Return how a program ended on a card."""
    if one.outcome is TrialOutcome.FAILED:
        by = "" if one.ended_by is None else f", {clean(one.ended_by, 80)}"
        at = "" if one.ended_at is None else f" in {_place(one.ended_at)}"
        saying = f": {clean(one.ended_saying, _LONGEST)}" if one.ended_saying else ""
        return f"it failed by itself: {_status(one.status)}{by}{at}{saying}"
    if one.outcome is TrialOutcome.OUT_OF_MEMORY:
        failed = one.failed
        return "out of memory" if failed is None else f"out of memory {_failure(failed)}"
    if not one.device_peak_bytes:
        return "completes; it never used the card"
    times = "error" if one.errors == 1 else "errors"
    after = f", after {one.errors} out-of-memory {times}" if one.errors else ""
    tight = ", but only just: its CUDA context may take more" if one.is_tight else ""
    return f"completes{after}{tight}"


def _failure(failed: FailedAllocation) -> str:
    where = "" if failed.where is None else f"in {_place(failed.where)}, "
    inside = f" (inside {clean(' > '.join(failed.inside), _LONGEST)})" if failed.inside else ""
    return (
        f"{where}asking for {phrases.need(failed.asked_bytes)} with "
        f"{phrases.nearest(failed.allocated_bytes)} allocated and "
        f"{phrases.available(failed.free_bytes)} free{inside}"
    )


def _status(status: int) -> str:
    if status >= 0:
        return f"status {status}"
    named = {int(one): one.name for one in signal.Signals}.get(-status)
    why = ", as a system does whose own memory has ended" if named == "SIGKILL" else ""
    return f"killed by {named or f'signal {-status}'}{why}"


def _place(place: CodePlace) -> str:
    return f"{clean(place.file, _LONGEST)}:{place.line} ({clean(place.function, 80)})"


def remarks(one: Trial) -> Iterable[str]:
    """Yield what is to be known of a trial's figures."""
    yield from (clean(told, _LONGEST) for told in one.remarks)
    if one.value_reads:
        places = ", ".join(_place(place) for place in one.value_places[:3])
        where = f" ({places})" if places else ""
        yield (
            f"the program read values that nobody computed {one.value_reads} times{where}; they "
            "are 0: what it decided by them may be decided otherwise on a GPU"
        )
    for refusal in one.refusals:
        yield _refusal(refusal)
    if one.ended_by in _COMPILERS:
        yield (
            "torch.compile and Triton work on a pretended card where Triton is installed for this "
            "Python and finds a C compiler"
        )
    for note in one.notes:
        yield f"not everything was seen: {clean(note, _LONGEST)}"


def _refusal(name: str) -> str:
    if name.startswith("cudnn: it is not installed"):
        return (
            "cuDNN is not installed: convolutions take no workspace here, on a GPU they do "
            "(pip install nvidia-cudnn-cu13 nvidia-cublas)"
        )
    library, colon, what = name.partition(": ")
    if colon:
        return (
            f"{_LIBRARIES.get(library, library)} does not tell without a GPU, and it counts as 0: "
            f"{clean(what, 80)}"
        )
    missed = next((words for prefix, words in _MISSING.items() if name.startswith(prefix)), None)
    called = clean(name, 80)
    return f"a pretended card has no {missed or called} ({called})"


def _peaks(trials: Sequence[Trial]) -> Table:
    rows = (
        (
            cell(phrases.name(one.card)),
            cell(*_WORDS[one.outcome][:1], tone=_WORDS[one.outcome][1]),
            cell(phrases.nearest(one.allocated_peak_bytes)),
            cell(phrases.nearest(one.reserved_peak_bytes)),
            cell(phrases.need(one.device_peak_bytes)),
            cell(phrases.available(one.total_bytes)),
        )
        for one in trials
    )
    return table("card, outcome, allocated#, reserved#, device#, of#", rows)


def _held(one: Trial) -> list[tuple[str, Table]]:
    """Return who holds the memory: where it ended, else at the peak; from 1 MiB."""
    holders, when = _holders(one)
    heading = f"who holds the memory {when}, on {phrases.name(one.card)}"
    rows = [(size, holder) for holder, size in _holder_rows(holders)]
    return [(heading, table("size#, held by", rows))] if rows else []


def _held_apart(one: Trial) -> list[tuple[str, Table]]:
    """Return the same in two tables: what has a name, and lines of the program."""
    holders, when = _holders(one)
    named = [holder for holder in holders if holder.name is not None]
    lines = [holder for holder in holders if holder.name is None]
    found = (
        (f"by module and optimiser, {when}", "held by, size#", _holder_rows(named)),
        (f"by the line that allocated it, {when}", "line, size#", _holder_rows(lines)),
    )
    return [(heading, table(columns, rows)) for heading, columns, rows in found if rows]


def _holders(one: Trial) -> tuple[Sequence[Holder], str]:
    if one.outcome is TrialOutcome.OUT_OF_MEMORY and one.failed is not None:
        return one.failed.holders, "when memory ended"
    return one.holders, "at the peak"


def _holder_rows(holders: Sequence[Holder]) -> list[tuple[Cell, Cell]]:
    return [
        (cell(_holder(holder)), cell(phrases.nearest(holder.size_bytes)))
        for holder in holders
        if holder.size_bytes >= MIB
    ]


def _advised(one: Trial) -> list[tuple[str, Table]]:
    """Return what would help, by what the run has shown."""
    rows = [(cell(_saved(advice)), cell(clean(advice.text, _LONGEST))) for advice in one.advice]
    return (
        [("what would help, and about what it spares", table("spares#, change", rows))]
        if rows
        else []
    )


def _saved(advice: Advice) -> str:
    return phrases.NOTHING if advice.saves_bytes is None else phrases.nearest(advice.saves_bytes)


def _advice(advice: Advice) -> str:
    about = "" if advice.saves_bytes is None else f" (about {_saved(advice)})"
    return f"{clean(advice.text, _LONGEST)}{about}"


def _holder(holder: Holder) -> str:
    if holder.name is not None:
        return clean(holder.name, _LONGEST)
    return "allocated earlier than was kept" if holder.place is None else _place(holder.place)


# --------------------------------------------------------------------------------------- scripts
def _result(
    trials: Sequence[Trial], command: Sequence[str], smallest: Trial | None, *, seeks: bool
) -> dict[str, Json]:
    """Return the result: of the card that was asked for, and of every card that was tried."""
    chosen = smallest or trials[-1 if seeks else 0]
    return {
        "program": list(command),
        **trial_object(chosen),
        "smallest_card": None if smallest is None else smallest.card,
        "runs": [trial_object(one) for one in trials],
    }


def trial_object(one: Trial) -> dict[str, Json]:
    """Return one trial."""
    low, taken, high = one.context_bytes
    failed = one.failed
    return {
        "outcome": one.outcome.value,
        "card": one.card,
        "card_title": one.card_title,
        "compute_capability": one.compute_capability,
        "total_bytes": one.total_bytes,
        "context": {"low_bytes": low, "bytes": taken, "high_bytes": high},
        "is_tight": one.is_tight,
        "status": one.status,
        "ended_by": one.ended_by,
        "ended_at": _place_object(one.ended_at),
        "ended_saying": one.ended_saying,
        "allocated_peak_bytes": one.allocated_peak_bytes,
        "reserved_peak_bytes": one.reserved_peak_bytes,
        "device_peak_bytes": one.device_peak_bytes,
        "where": None if failed is None else _place_object(failed.where),
        "inside": [] if failed is None else list(failed.inside),
        "operator": None if failed is None else failed.operator,
        "asked_bytes": None if failed is None else failed.asked_bytes,
        "free_bytes": None if failed is None else failed.free_bytes,
        "allocated_bytes": None if failed is None else failed.allocated_bytes,
        "errors": one.errors,
        "retries": one.retries,
        "held_at_peak": [_holder_object(holder) for holder in one.holders],
        "held_when_failed": []
        if failed is None
        else [_holder_object(holder) for holder in failed.holders],
        "advice": [
            {"change": advice.text, "saves_bytes": advice.saves_bytes} for advice in one.advice
        ],
        "timeline": [
            {
                "launches": moment.launches,
                "allocated_bytes": moment.allocated_bytes,
                "reserved_bytes": moment.reserved_bytes,
                "where": _place_object(moment.place),
            }
            for moment in one.timeline
        ],
        "value_reads": {
            "count": one.value_reads,
            "places": [_place_object(place) for place in one.value_places],
        },
        "not_known": list(one.refusals),
        "notes": list(one.notes),
        "remarks": list(one.remarks),
        "versions": dict(one.versions),
    }


def _place_object(place: CodePlace | None) -> Json:
    if place is None:
        return None
    found: dict[str, Json] = {"file": place.file, "line": place.line, "function": place.function}
    if place.count is not None:
        found["count"] = place.count
    return found


def _holder_object(holder: Holder) -> Json:
    return {
        "name": holder.name,
        "where": _place_object(holder.place),
        "size_bytes": holder.size_bytes,
    }
