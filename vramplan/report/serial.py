"""JSON that scripts may rely on: sizes are integers of bytes, absent is null.

The fields are described by ``profiles/schema/output.schema.json``. Only `json` is imported: a JSON
`check` must start as fast as Python does.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from json.encoder import encode_basestring_ascii as _ascii

from vramplan import __version__
from vramplan.catalog.pipelines import Entry
from vramplan.model import (
    LANGUAGE_MODEL,
    PROJECTOR,
    Advice,
    Buffer,
    Card,
    CardShare,
    Estimate,
    LayerSplit,
    Line,
    LineKind,
    Pipeline,
    PublishedFigure,
    Settings,
    SettingValue,
    TimelinePoint,
    Verdict,
    buffer_bytes,
)
from vramplan.quick_typing import TYPE_CHECKING, TypeAlias
from vramplan.setting_values import SIZES

if TYPE_CHECKING:
    from vramplan.budget.difference import Comparison, Difference
    from vramplan.budget.plan import Largest

SCHEMA_VERSION = 1

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | None"


def to_json(command: str, result: dict[str, Json]) -> str:
    """Return the one object a command writes, in ASCII, so that no terminal acts on its text."""
    whole = {
        "schema_version": SCHEMA_VERSION,
        "vramplan": __version__,
        "command": command,
        "result": result,
    }
    return f"{_indented(whole)}\n"


def _indented(value: object, margin: str = "\n") -> str:
    """Return what `json.dumps` writes with ``indent=2, allow_nan=False``, in half the time.

    With an indent the standard library goes through every value in Python, a generator each.
    """
    if isinstance(value, dict) and value:
        inside = f"{margin}  "
        parts = [f"{_ascii(name)}: {_indented(one, inside)}" for name, one in value.items()]
        return f"{{{inside}{f',{inside}'.join(parts)}{margin}}}"
    if isinstance(value, list) and value:
        inside = f"{margin}  "
        return f"[{inside}{f',{inside}'.join([_indented(one, inside) for one in value])}{margin}]"
    if type(value) is str:
        return _ascii(value)
    if type(value) is int:
        return str(value)
    return json.dumps(value, allow_nan=False)


def check_result(
    verdicts: Sequence[Verdict],
    largest: Sequence[Mapping[str, Largest | None]] = (),
    compared: Comparison | None = None,
) -> dict[str, Json]:
    """Return the result of `check`: one object per pipeline and card.

    `largest` are the largest sizes that fit, for each verdict from the first on; `compared` is what
    has changed since an earlier answer.
    """
    listed: list[Json] = []
    for place, verdict in enumerate(verdicts):
        found = largest_object(largest[place]) if place < len(largest) else None
        since = None if compared is None else since_object(compared.differences[place])
        listed.append({**verdict_object(verdict), "largest": found, "since": since})
    result: dict[str, Json] = {"verdicts": listed}
    if compared is not None:
        result["gone"] = gone_objects(compared)
    return result


def since_object(one: Difference) -> dict[str, Json]:
    """Return what has become of one verdict."""
    before = one.before
    return {
        "change": one.became.value,
        "verdict": None if before is None else before.kind.value,
        "target": None if before is None else before.target,
        "need_bytes": None if before is None else before.need_bytes,
        "budget_bytes": None if before is None else before.budget_bytes,
        "need_difference_bytes": one.need_bytes,
        "budget_difference_bytes": one.budget_bytes,
    }


def gone_objects(compared: Comparison) -> list[Json]:
    """Return what is judged no more."""
    return [
        {
            "pipeline": one.pipeline,
            "target": one.target,
            "name": one.name or None,
            "card": one.card,
            "verdict": one.kind.value,
            "need_bytes": one.need_bytes,
        }
        for one in compared.gone
    ]


def largest_object(largest: Mapping[str, Largest | None]) -> dict[str, Json]:
    """Return the largest value of each size; null for one that there is not, or that none fits."""
    found = {key: one.value for key, one in largest.items() if one is not None}
    last_known = [key for key, one in largest.items() if one is not None and one.is_last_known]
    return {
        **{key: _setting(found[key]) if key in found else None for key in SIZES},
        "last_known": [*last_known],
    }


def verdict_object(verdict: Verdict) -> dict[str, Json]:
    """Return one verdict."""
    return {
        "pipeline": verdict.pipeline,
        "target": verdict.asked.text or verdict.pipeline,
        "name": verdict.asked.name or None,
        "settings": settings_object(verdict.asked.settings),
        "card": verdict.card,
        "card_title": verdict.card_title,
        "judged_as": verdict.judged_as,
        "verdict": verdict.kind.value,
        "need_low_bytes": verdict.need.low_bytes,
        "need_bytes": verdict.need.expected_bytes,
        "need_high_bytes": verdict.need.high_bytes,
        "budget_bytes": verdict.budget_bytes,
        "headroom_bytes": verdict.headroom_bytes,
        "offload_risk": _finite(verdict.offload_risk),
        "peak_phase": verdict.peak_phase,
        "peak_component": verdict.peak_component,
        "reason": verdict.reason,
        "components": [
            {"name": part, "weights_bytes": size_bytes}
            for part, size_bytes in verdict.parts.items()
        ],
        "layers": _layers(verdict.layers),
        "context": verdict.context,
        "buffers": buffers_object(verdict.buffers),
        "cards": _cards(verdict.cards),
        "advice": [advice_object(advice) for advice in verdict.advice],
    }


def advice_object(advice: Advice) -> dict[str, Json]:
    """Return one piece of advice."""
    return {
        "change": advice.change,
        "effect": advice.effect,
        "cost": advice.cost,
        "need_bytes": advice.need_bytes,
    }


def estimate_result(estimate: Estimate) -> dict[str, Json]:
    """Return the result of `estimate`: the budget line by line, phase by phase."""
    return {
        "pipeline": estimate.pipeline,
        "title": estimate.title,
        "runtime": estimate.runtime,
        "compute_capability": estimate.compute_capability,
        "settings": settings_object(estimate.settings),
        "components": [
            {
                "name": component.name,
                "parameters": component.parameters,
                "dtype": component.dtype,
                "weights_bytes": component.weights_bytes,
                "device": component.device,
            }
            for component in estimate.components
        ],
        "phases": [
            {
                "name": phase.name,
                "component": phase.component,
                "allocated_peak_bytes": phase.allocated_peak_bytes,
                "reserved_peak_bytes": phase.reserved_peak_bytes,
                "device_used_bytes": phase.device_used_bytes,
            }
            for phase in estimate.phases
        ],
        "terms": [_line(line) for line in estimate.lines],
        "peak": _peak(estimate),
        "need": _need(estimate),
        "timeline": _timeline(estimate.timeline),
        "buffers": buffers_object(estimate.buffers),
        "layers": _layers(estimate.layers),
        "cards": _cards(estimate.cards),
        "published": [_published(figure) for figure in estimate.published],
        "notes": list(estimate.notes),
    }


def catalog_result(pipelines: Iterable[Pipeline]) -> dict[str, Json]:
    """Return the result of `catalog list`."""
    return {
        "pipelines": [
            {
                "name": pipeline.name,
                "aliases": list(pipeline.aliases),
                "title": pipeline.title,
                "summary": pipeline.summary,
                "runtime": pipeline.runtime,
                **_said_of(pipeline),
                "settings": settings_object(pipeline.defaults),
                "source": pipeline.source,
                "path": pipeline.path,
            }
            for pipeline in pipelines
        ]
    }


def _said_of(pipeline: Pipeline) -> dict[str, Json]:
    """Return what an entry says of itself beside its run; null where it does not."""
    entry = pipeline if isinstance(pipeline, Entry) else None
    return {
        "family": (entry and entry.family) or None,
        "task": (entry and entry.task) or None,
        "license": (entry and entry.license) or None,
        "parameters": entry.parameters if entry else None,
        "repositories": list(entry.repositories) if entry else [],
    }


def cards_result(cards: Iterable[Card]) -> dict[str, Json]:
    """Return the result of `cards`."""
    return {
        "cards": [
            {
                "name": card.name,
                "aliases": list(card.aliases),
                "title": card.title,
                "kind": card.kind,
                "class_gib": card.class_gib,
                "total_bytes": card.total_bytes,
                "reserved_bytes": card.reserved_bytes,
                "free_bytes": card.free_bytes,
                "compute_capability": card.compute_capability,
                "multiprocessors": card.multiprocessors,
                "shares_memory": card.shares_memory,
                "bandwidth_bytes_per_s": card.bandwidth_bytes_per_s,
                "source": card.source,
            }
            for card in cards
        ]
    }


def settings_object(settings: Settings) -> dict[str, Json]:
    """Return settings as ``--set`` reads them."""
    return {key: _setting(value) for key, value in settings.items()}


def _setting(value: SettingValue) -> Json:
    """Return a setting as ``--set`` reads it: an image is WIDTHxHEIGHT."""
    if isinstance(value, tuple):
        return "x".join(str(side) for side in value)
    return _finite(value) if isinstance(value, float) else value


def _finite(figure: float) -> float | None:
    """Return `figure`, or None where JSON has no word for it."""
    return figure if math.isfinite(figure) else None


def _line(line: Line) -> dict[str, Json]:
    return {
        "name": line.name,
        "kind": line.kind.value,
        "device": str(line.device),
        "phase": line.phase,
        "component": line.component,
        "low_bytes": line.band.low_bytes,
        "bytes": line.band.expected_bytes,
        "high_bytes": line.band.high_bytes,
        "origin": line.origin.value,
        "source": line.source,
    }


def _peak(estimate: Estimate) -> dict[str, Json]:
    peak = estimate.peak
    return {
        "phase": peak.phase,
        "component": peak.component,
        "allocated_bytes": peak.allocated_bytes,
        "reserved_bytes": peak.reserved_bytes,
        "device_low_bytes": peak.device.low_bytes,
        "device_bytes": peak.device.expected_bytes,
        "device_high_bytes": peak.device.high_bytes,
    }


def _need(estimate: Estimate) -> dict[str, Json]:
    need = estimate.need
    return {
        "phase": need.phase,
        "component": need.component,
        "low_bytes": need.band.low_bytes,
        "bytes": need.band.expected_bytes,
        "high_bytes": need.band.high_bytes,
    }


def _timeline(points: Iterable[TimelinePoint]) -> list[Json]:
    """Return the timeline as runs of one phase and component, each with its steps in order."""
    runs: list[Json] = []
    for (phase, component), run in groupby(
        points, key=lambda point: (point.phase, point.component)
    ):
        steps = list(run)
        allocated: list[Json] = [step.allocated_bytes for step in steps]
        reserved: list[Json] = [step.reserved_bytes for step in steps]
        runs.append(
            {
                "phase": phase,
                "component": component,
                "allocated_bytes": allocated,
                "reserved_bytes": reserved,
            }
        )
    return runs


def _layers(layers: LayerSplit | None) -> dict[str, Json] | None:
    if layers is None:
        return None
    return {
        "total": layers.total,
        "on_gpu": layers.on_gpu,
        "experts_on_cpu": layers.experts_on_cpu,
    }


def _cards(cards: Sequence[CardShare]) -> list[Json] | None:
    """Return what each of several cards holds, or None for one card."""
    return [_card_share(share) for share in cards] or None


def _card_share(share: CardShare) -> dict[str, Json]:
    """Return one card; what is in host memory is in the whole's buffers."""
    buffers = buffers_object(share.buffers) or {}
    return {
        "device": str(share.device),
        "card": share.card,
        "card_title": share.card_title,
        "verdict": None if share.kind is None else share.kind.value,
        "need_low_bytes": share.need.low_bytes,
        "need_bytes": share.need.expected_bytes,
        "need_high_bytes": share.need.high_bytes,
        "budget_bytes": share.budget_bytes,
        "headroom_bytes": share.headroom_bytes,
        "layers": share.layers,
        "buffers": {key: size for key, size in buffers.items() if not key.startswith("host_")}
        or None,
    }


def buffers_object(buffers: Sequence[Buffer]) -> dict[str, Json] | None:
    """Return the sizes of an engine's buffers; what has no field of its own is in another's.

    A projector in host memory is in the model's there, its compute buffer in the host's.
    """
    if not buffers:
        return None

    def on_gpu(kind: LineKind, component: str | None = None) -> int:
        return buffer_bytes(buffers, kind, component=component)

    def on_host(*kinds: LineKind) -> int:
        return buffer_bytes(buffers, *kinds, on_host=True)

    return {
        "model_bytes": on_gpu(LineKind.WEIGHTS, LANGUAGE_MODEL),
        "kv_cache_bytes": on_gpu(LineKind.KV_CACHE),
        "compute_bytes": on_gpu(LineKind.COMPUTE_BUFFER),
        "host_model_bytes": on_host(LineKind.WEIGHTS),
        "host_kv_cache_bytes": on_host(LineKind.KV_CACHE),
        "host_compute_bytes": on_host(LineKind.COMPUTE_BUFFER, LineKind.PROJECTOR_COMPUTE),
        "projector_bytes": on_gpu(LineKind.WEIGHTS, PROJECTOR),
        "projector_compute_bytes": on_gpu(LineKind.PROJECTOR_COMPUTE),
        "pool_bytes": on_gpu(LineKind.ENGINE_POOL),
        "recurrent_state_bytes": on_gpu(LineKind.RECURRENT_STATE),
    }


def _published(figure: PublishedFigure) -> dict[str, Json]:
    return {
        "claim": figure.claim,
        "what": figure.what,
        "published_bytes": figure.published_bytes,
        "ours_bytes": figure.ours_bytes,
        "source": figure.source,
        "remark": figure.remark,
    }
