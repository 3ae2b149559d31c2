"""An estimate beside a measured run as tables and sentences."""

from __future__ import annotations

from collections.abc import Iterator

from vramplan.compare.comparison import Comparison
from vramplan.compare.pair import Pair
from vramplan.compare.rows import BufferRow, PhaseRow
from vramplan.compare.waterfall import Basis, Waterfall
from vramplan.measurement.run import Failure, FailureKind, Run, Witness
from vramplan.report import phrases
from vramplan.report.colour import Tone
from vramplan.report.rows import Cell, Table, cell, table, without_empty
from vramplan.report.text import clean
from vramplan.units import GIB

#: the tone of each band of residuals, from within 2 % to beyond 14 %
_TONES = (Tone.FITS, Tone.PLAIN, Tone.TIGHT, Tone.OFFLOAD, Tone.OOM)

_MINUS = "\N{MINUS SIGN}"


def about(run: Run) -> tuple[str, ...]:
    """Return what was measured, on what, and with which versions, a sentence each."""
    return tuple(clean(sentence, 400) for sentence in _about(run))


def _about(run: Run) -> Iterator[str]:
    yield f"{phrases.name(run.runtime)} · {phrases.settings(run.settings)}"
    yield f"on {card_of(run)}"
    if run.weights == "random":
        yield "weights: random, of the real shapes; memory depends on shapes"
    else:
        yield f"weights: {run.checkpoint or run.weights}"
    if run.versions:
        yield ", ".join(f"{name} {version}" for name, version in run.versions.items())
    if run.kernels != "machine":
        yield (
            f"kernels that compute capability {run.kernels} does not have were switched off; what "
            "cuDNN and cuBLAS choose beside that is the real card's"
        )
    if run.witness is Witness.DRY and run.buffers:
        yield "no GPU was looked at: the figures are the engine's own"
    elif run.witness is Witness.DRY:
        yield "a dry run on the CPU: the code was executed, nothing was measured"
    if run.witness is Witness.PRETENDED:
        yield (
            "a card that is not there: the figures of torch are its own, the CUDA context is the "
            "middle of our band, kernels computed nothing"
        )
    if run.witness is Witness.SYNTHETIC:
        yield "made up for an example: no GPU said this"


def card_of(run: Run) -> str:
    """Return the card in words: an emulated one names the real card it is a share of."""
    if run.gpu is None:
        return "no GPU"
    whole = f"{phrases.name(run.gpu.name)}, driver {phrases.name(run.gpu.driver)}"
    if run.emulation is None:
        return whole
    share = run.emulation.free_bytes / GIB
    return f"{share:.2f} GiB free of an {whole}, as {phrases.name(run.emulation.card)}"


def outcome(run: Run) -> tuple[Tone, str]:
    """Return how the run ended."""
    if run.failure is None:
        return Tone.FITS, "✓ ran to its end"
    return Tone.OOM, f"✗ {failure_sentence(run.failure)}"


_ENDS = {
    FailureKind.OOM: "out of memory",
    FailureKind.ERROR: "failed",
    FailureKind.CRASH: "the process died",
    FailureKind.TIMEOUT: "the process hung",
}


def failure_sentence(failure: Failure) -> str:
    """Return where a run ended, why, and what it asked for."""
    place = phrases.place(failure.phase, failure.component)
    asked = ""
    if failure.asked_bytes is not None:
        asked = f", asking for {phrases.nearest(failure.asked_bytes)}"
    said = "" if failure.kind is FailureKind.OOM else f": {clean(failure.message, 300)}"
    return f"{_ENDS[failure.kind]} in {place}{asked}{said}"


def component_table(comparison: Comparison) -> Table:
    """Return the components' weights."""
    rows = (
        (
            cell(phrases.name(row.name), tone=Tone.STRONG),
            cell(f"{row.parameters:,}"),
            _size(row.weights.estimate_bytes),
            _size(row.weights.measured_bytes),
            residual(row.weights),
        )
        for row in comparison.components
    )
    return table("component!, parameters#, weights#, measured#, residual#", rows)


def phase_table(comparison: Comparison) -> Table:
    """Return the peaks of each component in each phase, with the residuals below them.

    What the process is estimated at is reserved and the CUDA context: it has no column. What
    nvidia-smi said is of the end of the phase.
    """
    headers = (
        "phase!, component!, allocated#, measured#, reserved#, measured #, NVML process#, "
        "NVML device#, nvidia-smi#, warm reserved#"
    )
    rows = (tuple(_phase_row(row)) for row in comparison.phases)
    return without_empty(
        table(headers, rows),
        "measured",
        "NVML process",
        "NVML device",
        "nvidia-smi",
        "warm reserved",
    )


def _phase_row(row: PhaseRow) -> Iterator[Cell]:
    yield cell(phrases.name(row.phase))
    yield cell(phrases.name(row.component))
    for pair in (row.allocated, row.reserved):
        yield _size(pair.estimate_bytes)
        yield measured(pair)
    yield measured(row.process)
    yield _size(row.device_bytes)
    yield _size(row.smi_bytes)
    yield _size(row.warm_reserved_bytes)


def peak_table(comparison: Comparison) -> Table:
    """Return the run's highest points."""
    pairs = (
        ("allocated peak", comparison.peak_allocated, "live tensors"),
        ("reserved peak", comparison.peak_reserved, "what torch holds"),
        ("process", comparison.peak_process, "NVML's figure for the process"),
    )
    rows = (
        (
            cell(label, tone=Tone.STRONG),
            _size(pair.estimate_bytes),
            _size(pair.measured_bytes),
            residual(pair),
            cell(what),
        )
        for label, pair, what in pairs
    )
    return table("peak!, estimate#, measured#, residual#, what it is", rows)


def buffer_table(comparison: Comparison) -> Table:
    """Return an engine's buffers."""
    rows = (
        (
            cell(phrases.name(row.name), tone=Tone.STRONG),
            cell(_where(row)),
            _size(row.size.estimate_bytes),
            _size(row.size.measured_bytes),
            residual(row.size),
        )
        for row in comparison.buffers
    )
    return table("buffer!, where, estimate#, engine#, residual#", rows)


def _where(row: BufferRow) -> str:
    return "host memory" if row.is_on_host else "GPU"


def waterfall_table(waterfall: Waterfall) -> Table:
    """Return the steps to the number that is shown, and what is left."""
    rows: list[tuple[Cell, ...]] = [
        (
            cell(step.name, tone=Tone.STRONG),
            _size(step.estimate_bytes),
            cell(phrases.nearest(step.bytes)),
            cell(_BASES[step.basis]),
        )
        for step in waterfall.steps
    ]
    rows.append(_last("unaccounted", waterfall.unaccounted_bytes, _share(waterfall)))
    rows.append(_last(f"{waterfall.shown_by} shows", waterfall.shown_bytes, ""))
    return without_empty(table("step!, estimate#, on the card#, basis", rows, totals=1), "estimate")


_BASES = {
    Basis.MEASURED: "measured",
    Basis.DIFFERENCE: "difference of two measurements",
    Basis.ESTIMATE: "the estimate: nothing measures it apart",
}


def _last(name: str, size_bytes: int, detail: str) -> tuple[Cell, ...]:
    return (
        cell(name, tone=Tone.STRONG),
        cell(phrases.NOTHING),
        cell(phrases.nearest(size_bytes)),
        cell(detail),
    )


def _share(waterfall: Waterfall) -> str:
    if not waterfall.shown_bytes:
        return ""
    return f"{signed_percent(100 * waterfall.unaccounted_bytes / waterfall.shown_bytes)} of it"


def measured(pair: Pair) -> Cell:
    """Return a measurement with its residual in per cent behind or below it."""
    if pair.measured_bytes is None:
        return cell(phrases.NOTHING)
    percent = pair.residual_percent
    detail = "" if percent is None else signed_percent(percent)
    return cell(phrases.nearest(pair.measured_bytes), detail, _tone(pair))


def residual(pair: Pair) -> Cell:
    """Return a residual in MiB and per cent."""
    if pair.residual_bytes is None:
        return cell(phrases.NOTHING)
    percent = pair.residual_percent
    detail = "" if percent is None else signed_percent(percent)
    return cell(signed_size(pair.residual_bytes), detail, _tone(pair))


def _tone(pair: Pair) -> Tone:
    return Tone.PLAIN if pair.band is None else _TONES[pair.band]


def signed_size(size_bytes: int) -> str:
    """Return a difference: ``+12 MiB``."""
    text = phrases.nearest(abs(size_bytes))
    return f"{_MINUS if size_bytes < 0 else '+'}{text}"


def signed_percent(percent: float) -> str:
    """Return a share with its sign: ``+1.3 %``."""
    return f"{percent:+.1f} %".replace("-", _MINUS)


def _size(size_bytes: int | None) -> Cell:
    return cell(phrases.NOTHING if size_bytes is None else phrases.nearest(size_bytes))
