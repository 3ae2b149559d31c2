"""The part of docs/accuracy.md that is about buffers which engines printed and others published.

Read from profiles/engine_logs; `generate_accuracy.py` puts it into the page.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tools.docs.page import ROOT, escape

if TYPE_CHECKING:
    from vramplan.engines.ggml.logged import LoggedFigure

TITLE = "## Buffers that engines printed"

INTRODUCTION = """\
What llama.cpp and the programs around it printed when they loaded a model, as others published it
(`profiles/engine_logs`), beside ours for the same shapes, settings and build. Weights are compared
where a file has one type throughout, compute buffers where the log tells what is copied. Where a
log names no build, one of its time stands in brackets."""

_HEAD = (
    "| log | build | layers on the GPU | context | flash | buffer | printed | ours | difference |\n"
    "|---|---|--:|--:|---|---|--:|--:|--:|"
)
_MIB = 1 << 20


def render(profiles: Path = ROOT / "profiles") -> str:
    """Return the section."""
    from vramplan.catalog.engine_logs import load_engine_logs
    from vramplan.engines.ggml.logged import compare_log
    from vramplan.model import LineKind

    figures = [figure for log in load_engine_logs(profiles) for figure in compare_log(log)]
    rows = [_row(figure) for figure in figures]
    compute = [abs(figure.off) for figure in figures if figure.kind is LineKind.COMPUTE_BUFFER]
    summary = (
        f"{len(figures)} buffers of {len({figure.log.name for figure in figures})} logs. Of the "
        f"{len(compute)} compute buffers {sum(off <= 0.001 for off in compute)} are within 0.1 %, "
        f"{sum(off <= 0.05 for off in compute)} within 5 %; the worst is {max(compute):.1%} off."
    )
    return "\n\n".join([TITLE, INTRODUCTION, summary, "\n".join([_HEAD, *rows])])


def _row(figure: LoggedFigure) -> str:
    log = figure.log
    build = str(log.settings["engine"])
    cells = (
        f"[{escape(log.model.name)}]({log.source.split(',')[0].split(' ')[0]})",
        build if log.is_build_named else f"({build})",
        f"{log.on_gpu} of {log.total_layers}",
        f"{log.settings['context']:,}",
        str(log.settings["flash_attention"]),
        figure.name,
        f"{figure.printed_bytes / _MIB:,.2f} MiB",
        f"{figure.ours.expected_bytes / _MIB:,.2f} MiB",
        f"{figure.off * 100:+.1f} %".replace("-", "\N{MINUS SIGN}"),
    )
    return f"| {' | '.join(cells)} |"
