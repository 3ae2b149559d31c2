"""The real engine's buffers beside ours, in every format."""

from __future__ import annotations

from vramplan.compare.pair import Pair
from vramplan.compare.witness import Witness
from vramplan.report import phrases
from vramplan.report.colour import Tone, paint
from vramplan.report.comparison_serial import pair_object
from vramplan.report.grid import draw_table
from vramplan.report.markdown import escape, render_table
from vramplan.report.rows import Cell, Table, cell, table
from vramplan.report.serial import Json
from vramplan.report.text import wrap
from vramplan.units import MIB

_MINUS = "\N{MINUS SIGN}"
#: the engine prints hundredths of a MiB
_ROUNDING_BYTES = MIB // 100


def draw_witness(witness: Witness, colour: bool, width: int) -> str:
    """Return the rows for a terminal."""
    lines = ["", paint("the engine beside ours", Tone.STRONG, colour)]
    lines += [f"  {line}" for line in wrap(_about(witness), width - 2)]
    lines += [f"  {line}" for line in draw_table(_table(witness), width=width - 2, colour=colour)]
    return "\n".join(lines) + "\n"


def mark_witness(witness: Witness) -> str:
    """Return the rows as Markdown."""
    parts = ["### The engine beside ours", escape(_about(witness)), render_table(_table(witness))]
    return "\n\n".join(parts) + "\n"


def witness_object(witness: Witness) -> dict[str, Json]:
    """Return the rows for scripts."""
    layers = witness.layers
    return {
        "pipeline": witness.pipeline,
        "card": witness.card,
        "version": witness.engine,
        "is_known": witness.is_known,
        "contradictions": list(witness.contradictions),
        "layers": None
        if layers is None
        else {"ours": layers.ours, "engine": layers.engine, "total": layers.total},
        "buffers": [{"name": row.name, "size": pair_object(row.size)} for row in witness.rows],
    }


def _about(witness: Witness) -> str:
    known = "" if witness.is_known else "; the family's graph is not known, ours is a guess"
    if witness.contradictions:
        known = f". THE ENGINE CONTRADICTS OURS: {', '.join(witness.contradictions)}; trust it"
    engine = phrases.name(witness.engine)
    if witness.card is not None and witness.layers is None:
        pipeline, card = phrases.name(witness.pipeline), phrases.name(witness.card)
        return f"{pipeline} on {card}, a card that is not there: run once by {engine}{known}"
    if witness.card is None or witness.layers is None:
        return f"{engine}: llama.cpp's CPU build, all in host memory{known}"
    layers = witness.layers
    same = "so do we" if layers.ours == layers.engine else f"we say {layers.ours}"
    return (
        f"{phrases.name(witness.pipeline)} on {phrases.name(witness.card)}: {engine}, planning for "
        f"a CUDA card that is not there, puts {layers.engine} of {layers.total} layers on it; "
        f"{same}{known}"
    )


def _table(witness: Witness) -> Table:
    rows = (
        (cell(row.name), _mib(row.size.estimate_bytes), _mib(row.size.measured_bytes),
         cell(_difference(row.size)))
        for row in witness.rows
    )  # fmt: skip
    what = "buffer" if witness.layers is not None or witness.card is None else "peak"
    return table(f"{what}, ours#, the engine's#, difference#", rows)


def _mib(size_bytes: int | None) -> Cell:
    """Return a size as the engine prints it: MiB with two decimals."""
    return cell(phrases.NOTHING if size_bytes is None else f"{size_bytes / MIB:,.2f} MiB")


def _difference(pair: Pair) -> str:
    percent = pair.residual_percent
    if percent is None or pair.residual_bytes is None:
        return phrases.NOTHING
    if abs(pair.residual_bytes) < _ROUNDING_BYTES:
        return "equal"
    return f"{pair.residual_bytes / MIB:+,.2f} MiB, {percent:+.2f} %".replace("-", _MINUS)
