"""A run beside its estimate, and the way it is written."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from vramplan.catalog import Catalog
from vramplan.commands.output import write_result
from vramplan.measurement.run import Run
from vramplan.model import Job

if TYPE_CHECKING:
    from vramplan.ask.observe import Seen
    from vramplan.compare.comparison import Comparison
    from vramplan.compare.waterfall import Waterfall


def compare_job(run: Run, catalog: Catalog) -> Comparison:
    """Return `run` beside the estimate at its settings, on the architecture whose kernels ran."""
    from vramplan.ask.targets import open_pipelines
    from vramplan.catalog.cards import assumed_card
    from vramplan.compare.comparison import compare_run
    from vramplan.engines.door import engine_of

    (pipeline,) = open_pipelines([catalog.pipeline(run.pipeline)], catalog)
    job = Job(pipeline=pipeline, settings=run.settings)
    planned = engine_of(pipeline).estimate(job, assumed_card(capability_of(run)))
    return compare_run(planned, run, smi_used_bytes=_smi_used(run))


def capability_of(run: Run) -> str:
    """Return the compute capability whose kernels ran: the card's that was played, else the GPU's.

    A run without a GPU is estimated as an estimate without a card is.
    """
    from vramplan.catalog.cards import DEFAULT_CAPABILITY

    if run.emulation is not None:
        return run.emulation.compute_capability
    return run.gpu.compute_capability if run.gpu is not None else DEFAULT_CAPABILITY


def _smi_used(run: Run) -> int | None:
    """Return what nvidia-smi said was used on the run's card, where it was asked."""
    text = run.held.smi if run.held is not None else None
    if not text:
        return None
    from vramplan.probe.smi import used_bytes

    return used_bytes(text)


def write_comparison(
    args: Namespace, command: str, comparison: Comparison, tolerance_percent: float | None
) -> None:
    """Write a comparison in the format that was asked for."""

    def as_table(colour: bool, width: int) -> str:
        from vramplan.report.comparison import render_comparison

        return render_comparison(comparison, colour=colour, width=width)

    def as_json(_colour: bool, _width: int) -> str:
        from vramplan.report.comparison_serial import comparison_result
        from vramplan.report.serial import to_json

        return to_json(command, comparison_result(comparison, tolerance_percent))

    def as_markdown(_colour: bool, _width: int) -> str:
        from vramplan.report.comparison_markdown import render_comparison

        return render_comparison(comparison)

    def as_html(_colour: bool, _width: int) -> str:
        from vramplan.report.comparison_html import render_comparison

        return render_comparison(comparison)

    writers = {"table": as_table, "json": as_json, "markdown": as_markdown, "html": as_html}
    write_result(args, writers)


def write_waterfall(args: Namespace, job: Job, seen: Seen) -> Waterfall:
    """Write how the figure that was seen comes about, and return it."""
    from vramplan.catalog.cards import DEFAULT_CAPABILITY, assumed_card
    from vramplan.compare.waterfall import draw_waterfall
    from vramplan.engines.door import engine_of

    capability = seen.compute_capability or DEFAULT_CAPABILITY
    planned = engine_of(job.pipeline).estimate(job, assumed_card(capability))
    waterfall = draw_waterfall(planned, seen.observed)
    lines = [*seen.sentences]
    if not seen.compute_capability:
        lines.append(f"compute capability {capability} is assumed: nvidia-smi does not print it")

    def as_table(colour: bool, width: int) -> str:
        from vramplan.report.comparison import render_waterfall

        return render_waterfall(planned, waterfall, lines, colour=colour, width=width)

    def as_json(_colour: bool, _width: int) -> str:
        from vramplan.report.comparison_serial import waterfall_result
        from vramplan.report.serial import to_json

        return to_json("compare", waterfall_result(planned, waterfall, args.tolerance))

    def as_markdown(_colour: bool, _width: int) -> str:
        from vramplan.report.comparison_markdown import render_waterfall

        return render_waterfall(planned, waterfall, lines)

    def as_html(_colour: bool, _width: int) -> str:
        from vramplan.report.comparison_html import render_waterfall

        return render_waterfall(planned, waterfall, lines)

    writers = {"table": as_table, "json": as_json, "markdown": as_markdown, "html": as_html}
    write_result(args, writers)
    return waterfall
