"""A text that somebody pasted, as the figure that is to be explained: nvidia-smi's, or torch's."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from vramplan.compare.waterfall import Observed
from vramplan.errors import MeasurementError, UsageError
from vramplan.measurement.reading import ProcessMemory
from vramplan.model import Estimate, LineKind
from vramplan.probe.oom_message import OomMessage, has_oom_message, read_oom_message
from vramplan.probe.smi import LONGEST, NOT_SMI, read_report
from vramplan.probe.smi_report import SmiGpu, SmiReport
from vramplan.probe.wrappings import clean_paste, decode_paste
from vramplan.quick_dataclass import dataclass
from vramplan.units import format_size

_MOST_NAMED = 5
_ASK_CARD = "--query-gpu=index,uuid,name,memory.total,memory.used adds it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pasted:
    """What a text shows, the GPU's name where it tells one, and what a reader must know of it."""

    observed: Observed
    gpu_name: str | None
    sentences: tuple[str, ...]


def read_pasted(
    text: str | bytes, selector: str | None = None, capacities: Container[int] = ()
) -> Pasted:
    """Return what the text shows of the GPU that `selector` names, else of the fullest.

    `capacities` are cards' memories in MiB, which tell a total without a heading.

    torch's out-of-memory message goes before a report of nvidia-smi in the same text: it tells
    more. Raises MeasurementError for a text that is neither or tells no size, UsageError for a GPU
    that is not in it.
    """
    text = decode_paste(text) if isinstance(text, bytes) else text
    if len(text) > LONGEST:
        hint = "cut the report or the message out of it"
        raise MeasurementError(f"{NOT_SMI}: more than {LONGEST:,} characters", hint=hint)
    clean = clean_paste(text)
    if not has_oom_message(clean):
        return _of_report(read_report(text, capacities), selector)
    try:
        message = read_oom_message(clean, _device(selector))
    except MeasurementError:
        report = _report_in(text)
        if report is None:
            raise
        said = "torch's out-of-memory message in the text is not read: it has no sizes"
        return _of_report(report, selector, (said,))
    beside = "nvidia-smi's report in the same text is not read: torch's message tells more"
    return _of_message(message, () if _report_in(text) is None else (beside,))


def _report_in(text: str) -> SmiReport | None:
    if "nvidia" not in text.lower():
        return None
    try:
        return read_report(text)
    except MeasurementError:
        return None


def _device(selector: str | None) -> int | None:
    if selector is None:
        return None
    if not (selector.isascii() and selector.isdigit() and len(selector) < 4):
        hint = "torch's message has its number: --gpu 0"
        raise UsageError(f"--gpu {selector!r}: not in torch's message", hint=hint)
    return int(selector)


# ------------------------------------------------------------------------------------- nvidia-smi
def _of_report(report: SmiReport, selector: str | None, said: Sequence[str] = ()) -> Pasted:
    places = list(_places(report.gpus))
    shown = _choose(places, selector)
    own = _largest(shown.processes)
    driver = f", driver {report.driver}" if report.driver else ""
    name = "a GPU that is not named" if shown.name == "GPU" else shown.name
    sentences = [f"{name}{driver}, as nvidia-smi printed it", *said, *report.remarks]
    if shown.instance is not None:
        of = f" of {format_size(shown.total_bytes)}" if shown.total_bytes is not None else ""
        sentences.append(f"{shown.place}{of}: its memory, limit and neighbours are its own")
    if selector is None and len(places) > 1:
        listed = ", ".join(one.selector for one in places[:20])
        sentences.append(f"GPU {shown.selector} of {listed}; --gpu takes another")
    sentences += _process_sentences(shown, own)
    observed = _observed(shown, own)
    return Pasted(observed=observed, gpu_name=shown.name, sentences=tuple(sentences))


def _places(gpus: Iterable[SmiGpu]) -> Iterable[SmiGpu]:
    """Yield what may hold a pipeline: GPUs, and the instances of those that are divided."""
    for gpu in gpus:
        told = [one for one in gpu.instances if one.tells_something]
        yield from told or [gpu]


def _choose(places: Sequence[SmiGpu], selector: str | None) -> SmiGpu:
    """Return the place that is named, by index, instance or UUID, else the largest process's.

    Where no process is told it is the fullest.

    Raises UsageError for one that is not listed.
    """
    named = [one for one in places if selector is None or _is_named(one, selector)]
    if not named:
        hint = "it lists " + ", ".join(one.selector for one in places[:20])
        raise UsageError(f"--gpu {selector!r}: not in what nvidia-smi printed", hint=hint)
    return max(named, key=lambda one: (_size(_largest(one.processes)), one.used_bytes or -1))


def _is_named(one: SmiGpu, selector: str) -> bool:
    names = (one.selector, str(one.index), *([one.uuid.lower()] if one.uuid else []))
    return selector.lower() in names


def _process_sentences(shown: SmiGpu, own: ProcessMemory | None) -> Iterable[str]:
    listed = shown.processes
    if own is not None and own.used_bytes is not None:
        yield f"taken for the pipeline: {own.name} ({own.pid}), {format_size(own.used_bytes)}"
    elif listed is None:
        yield "no process is listed: all that is used is taken for the pipeline's"
    elif listed and all(one.used_bytes is None for one in listed):
        yield (
            "what single processes hold is not told (Windows, WSL): all that is used is taken for "
            "the pipeline's"
        )
    elif own is None and listed:
        yield "no process computes: what none of them holds is taken for the pipeline's"
    others = [one for one in listed or () if one is not own]
    if any(one.used_bytes is not None for one in others):
        yield "other processes: " + _named(
            [(f"{one.name[-60:]} ({one.pid})", one) for one in others]
        )
    if shown.used_bytes is None:
        why = f" ({shown.untold})" if shown.untold else f": {_ASK_CARD}"
        yield f"what the card has used in all is not told{why}; the process alone is explained"


def _named(others: Sequence[tuple[str, ProcessMemory]]) -> str:
    largest = sorted(others, key=lambda pair: -(pair[1].used_bytes or 0))
    shown = [
        f"{name} {'not told' if one.used_bytes is None else format_size(one.used_bytes)}"
        for name, one in largest[:_MOST_NAMED]
    ]
    more = len(largest) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _size(process: ProcessMemory | None) -> int:
    return (process.used_bytes or 0) if process is not None else 0


def _largest(processes: Sequence[ProcessMemory] | None) -> ProcessMemory | None:
    computing = [one for one in processes or () if "C" in one.kind]
    return max(computing, key=lambda one: one.used_bytes or 0, default=None)


def _observed(shown: SmiGpu, own: ProcessMemory | None) -> Observed:
    held = own.used_bytes if own is not None else None
    if shown.used_bytes is None:
        if held is None:
            why = f": there nvidia-smi says {shown.untold!r}" if shown.untold else ""
            message = f"{shown.place} ({shown.name}): neither its memory nor a process's is told"
            raise MeasurementError(message + why, hint=_ASK_CARD)
        return Observed(shown_bytes=held, shown_by="nvidia-smi", process_bytes=held)
    sizes = [one.used_bytes for one in shown.processes or () if one is not own]
    known = [size for size in sizes if size is not None]
    return Observed(
        shown_bytes=shown.used_bytes,
        shown_by="nvidia-smi",
        system_reserved_bytes=shown.reserved_bytes,
        others_bytes=sum(known) if len(known) == len(sizes) else None,
        process_bytes=held,
    )


# ------------------------------------------------------------------------------------------ torch
def _of_message(message: OomMessage, said: Sequence[str]) -> Pasted:
    reserved = message.reserved_bytes
    held = message.in_use_bytes
    has = reserved if reserved is not None else message.allocated_bytes
    used = None
    if message.capacity_bytes is not None and message.free_bytes is not None:
        used = message.capacity_bytes - message.free_bytes
    sentences = [_asked(message), *said, *message.remarks, _torch_has(message)]
    if message.capacity_bytes is not None and has > message.capacity_bytes:
        # Windows' driver moves what does not fit into the host's memory, and torch counts it
        over = format_size(has - message.capacity_bytes)
        sentences.append(f"at least {over} of it is in the host's memory: the driver spills")
        used, held = has, has
    if message.allowed_bytes is not None:
        allowed = format_size(message.allowed_bytes)
        sentences.append(f"the process may take {allowed} (set_per_process_memory_fraction)")
    if message.others is None:
        sentences.append("other processes are not told: what they hold is in what is unaccounted")
    elif message.others:
        others = [
            (f"process {pid}", ProcessMemory(pid=pid, name="", used_bytes=size))
            for pid, size in message.others
        ]
        sentences.append("other processes: " + _named(others))
    observed = Observed(
        shown_bytes=has if used is None else used,
        shown_by="torch",
        others_bytes=None if message.others is None else sum(size for _, size in message.others),
        process_bytes=held,
        allocated_peak_bytes=message.allocated_bytes,
        reserved_bytes=reserved,
    )
    return Pasted(observed=observed, gpu_name=message.gpu_name, sentences=tuple(sentences))


def _asked(message: OomMessage) -> str:
    where = "" if message.device is None else f", GPU {message.device}"
    parts = [f"torch's out-of-memory message{where}"]
    if message.asked_bytes is not None:
        parts.append(f"it asked for {format_size(message.asked_bytes)}")
    if message.capacity_bytes is not None and message.free_bytes is not None:
        free, capacity = format_size(message.free_bytes), format_size(message.capacity_bytes)
        parts.append(f"{free} of {capacity} were free")
    return ": ".join(parts[:2]) + "".join(f", {part}" for part in parts[2:])


def _torch_has(message: OomMessage) -> str:
    said = f"torch has {format_size(message.allocated_bytes)} allocated"
    if message.unallocated_bytes is not None:
        said += f" and {format_size(message.unallocated_bytes)} reserved beside it"
    if message.in_use_bytes is not None:
        said += f"; the process has {format_size(message.in_use_bytes)} in use"
    return f"{said} (two decimals: a figure in GiB is right to 5 MiB)"


# ------------------------------------------------------------------------------------ is it there
def refuse_what_is_not_there(estimate: Estimate, seen: Observed) -> None:
    """Raise MeasurementError where less is held than the pipeline's weights alone.

    The steps of another thing would be drawn as its own. A message of torch's is exempt: a run may
    stop while it loads.
    """
    if seen.allocated_peak_bytes is not None:
        return
    weights = sum(
        line.band.low_bytes
        for line in estimate.lines
        if line.kind is LineKind.WEIGHTS and not line.device.is_host
    )
    held = seen.process_bytes
    if held is None:
        held = seen.shown_bytes - (seen.others_bytes or 0)
    if held < weights:
        message = (
            f"{seen.shown_by} shows {format_size(max(held, 0))} for it, less than the weights of "
            f"{estimate.pipeline} alone ({format_size(weights)}): it is not there, or not whole"
        )
        hint = "--gpu names another GPU; --offload or gpu_layers say what is not on the card"
        raise MeasurementError(message, hint=hint)


def overshoot_sentence(shown_bytes: int, unaccounted_bytes: int) -> list[str]:
    """Return what to say where the steps add up to more than is shown, by over 2 per cent of it."""
    if unaccounted_bytes * 50 >= -shown_bytes:
        return []
    over = format_size(-unaccounted_bytes)
    said = (
        f"the steps add up to {over} more than is shown: the estimate's are those of the peak, and "
        "this was seen at another moment or at other settings"
    )
    return [said]
