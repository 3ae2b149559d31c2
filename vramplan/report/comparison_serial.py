"""An estimate beside a measured run as JSON; the fields are in ``output.schema.json``."""

from __future__ import annotations

from vramplan.compare.comparison import Comparison, Explanation
from vramplan.compare.pair import Pair
from vramplan.compare.waterfall import Waterfall
from vramplan.measurement.run import Run
from vramplan.measurement.run_json import encode_run
from vramplan.quick_typing import cast
from vramplan.report.event_serial import events_object
from vramplan.report.serial import Json


def comparison_result(comparison: Comparison, tolerance_percent: float | None) -> dict[str, Json]:
    """Return the result of `compare` and of `profile`: the run itself is under ``run``."""
    worst = comparison.worst_percent
    return {
        "pipeline": comparison.run.pipeline,
        "run": cast("Json", encode_run(comparison.run)),
        "components": [
            {"name": row.name, "parameters": row.parameters, "weights": pair_object(row.weights)}
            for row in comparison.components
        ],
        "phases": [
            {
                "phase": row.phase,
                "component": row.component,
                "allocated": pair_object(row.allocated),
                "reserved": pair_object(row.reserved),
                "process": pair_object(row.process),
                "device_bytes": row.device_bytes,
                "smi_bytes": row.smi_bytes,
                "smi_process_bytes": row.smi_process_bytes,
                "warm_allocated_bytes": row.warm_allocated_bytes,
                "warm_reserved_bytes": row.warm_reserved_bytes,
            }
            for row in comparison.phases
        ],
        "buffers": [
            {"name": row.name, "on_host": row.is_on_host, "size": pair_object(row.size)}
            for row in comparison.buffers
        ],
        "peak": {
            "allocated": pair_object(comparison.peak_allocated),
            "reserved": pair_object(comparison.peak_reserved),
            "process": pair_object(comparison.peak_process),
        },
        "waterfall": waterfall_object(comparison.waterfall),
        "worst_percent": None if worst is None else round(worst, 3),
        "tolerance_percent": tolerance_percent,
        "events": events_object(comparison.events),
    }


def explanation_result(explained: Explanation, tolerance_percent: float | None) -> dict[str, Json]:
    """Return the result of `compare` for a card that was looked at from outside: no run."""
    return {
        **_bare(None if explained.estimate is None else explained.estimate.pipeline),
        "waterfall": waterfall_object(explained.waterfall),
        "worst_percent": round(explained.worst_percent, 3),
        "tolerance_percent": tolerance_percent,
        "remarks": list(explained.sentences),
    }


def run_result(run: Run) -> dict[str, Json]:
    """Return the result of `profile` where there is no estimate: the run alone."""
    return {**_bare(run.pipeline), "run": cast("Json", encode_run(run))}


def _bare(pipeline: str | None) -> dict[str, Json]:
    """Return a result with nothing in it."""
    return {
        "pipeline": pipeline,
        "run": None,
        "components": [],
        "phases": [],
        "buffers": [],
        "peak": None,
        "waterfall": None,
        "worst_percent": None,
        "tolerance_percent": None,
        "events": None,
    }


def pair_object(pair: Pair) -> dict[str, Json]:
    """Return an estimate, a measurement and their residual; bands are 0 (within 2 %) to 4."""
    percent = pair.residual_percent
    return {
        "estimate_bytes": pair.estimate_bytes,
        "measured_bytes": pair.measured_bytes,
        "residual_bytes": pair.residual_bytes,
        "residual_percent": None if percent is None else round(percent, 3),
        "band": pair.band,
    }


def waterfall_object(waterfall: Waterfall | None) -> dict[str, Json] | None:
    """Return the steps to the figure that is shown."""
    if waterfall is None:
        return None
    return {
        "steps": [
            {
                "name": step.name,
                "estimate_bytes": step.estimate_bytes,
                "bytes": step.bytes,
                "basis": step.basis.value,
            }
            for step in waterfall.steps
        ],
        "shown_bytes": waterfall.shown_bytes,
        "shown_by": waterfall.shown_by,
        "unaccounted_bytes": waterfall.unaccounted_bytes,
    }
