"""What a tape's replay says at some settings: peaks, timeline and least limits, low to high.

All of it takes some tenths of a second, so the results at the catalogue's default settings ship
beside the tapes (`shipped_results`), keyed by everything they depend on.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path

from vramplan.dtypes import ELEMENT_BYTES
from vramplan.engines.torch.attention_kernel import attention_kernel
from vramplan.engines.torch.by_identity import ById
from vramplan.engines.torch.changed_weights import changes_key, is_grouped
from vramplan.engines.torch.convolution_workspace import (
    NO_SCRATCH,
    MostScratch,
    OthersAt,
    WitnessedScratch,
    convolution_scratch,
    scratch_key,
    witnessed_scratch,
)
from vramplan.engines.torch.cublas_workspace import cublas_band
from vramplan.engines.torch.diffusers_offload import stays_on_device
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.result import PartWeights, Replayed, Scenario
from vramplan.engines.torch.tape_files import tape_key
from vramplan.errors import OutsideError
from vramplan.known_settings import IDLE, OF_CACHES, OF_GROUPS
from vramplan.model import Card, Settings
from vramplan.quick_dataclass import replace
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:  # a result that ships needs nothing that replays
    from vramplan.engines.torch.least_limit import LeastLimit
    from vramplan.engines.torch.tape.conditions import Conditions, Percents
    from vramplan.engines.torch.tape.format import Tape
    from vramplan.engines.torch.tape.mark import Mark
    from vramplan.engines.torch.tape.plans import WorkspaceModel
    from vramplan.engines.torch.tape.rehearsed import Rehearsed
    from vramplan.engines.torch.tape.trace import Trace

#: a phase with more marks than this is thinned: a token's are like the last one's, a little higher
_MOST_MARKS = 60

#: settings that change a verdict and not the replay
_NOT_REPLAYED = frozenset({"platform", "device_map"})

#: an architecture of each kind of kernel: a class of cards has all of them
EACH_KERNEL = ("8.6", "9.0", "7.5")
#: an architecture whose kernels every tape has that knows the dtype
ANY_CAPABILITY = "8.6"
#: element sizes that components run in: half precision and single
_WIDTHS = (2, 4)


#: what `on_card` calls the multiprocessors of a card
MULTIPROCESSORS = "multiprocessors"


def on_card(settings: Settings, card: Card) -> Settings:
    """Return settings with what of a card decides a replay beside its compute capability.

    In training that is how many multiprocessors share the sum of a gradient
    (`reduction_workspace`).
    """
    if settings.get("mode") != "train" or card.multiprocessors is None:
        return settings
    return {**settings, MULTIPROCESSORS: card.multiprocessors}


def conditions_at(
    pipeline: TorchPipeline, settings: Settings, compute_capability: str, tape: Tape
) -> Conditions:
    """Return what the replay depends on, from settings and architecture; scratch as expected."""
    from vramplan.engines.torch.facts import numbers_at, switched_off
    from vramplan.engines.torch.tape.conditions import Conditions

    outside = tape.outside(numbers_at(settings))
    if outside is not None and not pipeline.is_carried_on:
        raise OutsideError(f"{pipeline.name}: {outside}")
    dtype = _dtype(settings)
    facts = facts_of(pipeline, settings, compute_capability, tape)
    element_bytes = ELEMENT_BYTES[dtype]
    count = settings.get(MULTIPROCESSORS)
    scratches = {
        size: _scratch(compute_capability, size, dtype, count if isinstance(count, int) else None)
        for size in {element_bytes, *_WIDTHS}
    }
    return Conditions(
        numbers=numbers_at(settings),
        facts=facts,
        element_bytes=element_bytes,
        workspace_bytes=scratches[element_bytes],
        cast_workspace_bytes={size: scratches[size] for size in _WIDTHS},
        cublas_bytes=cublas_band(compute_capability)[0].expected_bytes,
        has_own_convolutions=_works_out_itself(scratches[element_bytes]),
        loading=pipeline.loading,
        offload=_offload(settings),
        stays=stays_on_device(pipeline.run_class, str(settings.get("offload", "none"))),
        skip_components=switched_off(tape.components, facts),
    )


def _offload(settings: Settings) -> str:
    """Return how components come and go: in groups as whole ones do, with fewer weights each."""
    word = str(settings.get("offload", "none"))
    return {"auto": "none", "group": "model"}.get(word, word)


def _scratch(
    compute_capability: str, element_bytes: int, dtype: str, multiprocessors: int | None
) -> WitnessedScratch | Percents:
    witnessed = witnessed_scratch(compute_capability, element_bytes, dtype, multiprocessors)
    return witnessed or convolution_scratch(compute_capability, element_bytes).expected


def _works_out_itself(model: WitnessedScratch | Percents) -> bool:
    return isinstance(model, WitnessedScratch) and model.is_own


def knows_plans(conditions: Conditions) -> bool:
    """Return whether more than a library's first plan is known, so that scratch may take less."""
    models = (conditions.workspace_bytes, *conditions.cast_workspace_bytes.values())
    return any(isinstance(model, WitnessedScratch) for model in models)


def holds_at(
    pipeline: TorchPipeline, settings: Settings, compute_capability: str, tape: Tape
) -> bool:
    """Return whether a tape was recorded for these settings on an architecture."""
    from vramplan.engines.torch.facts import numbers_at

    if tape.outside(numbers_at(settings)) is not None:
        return False
    return has_code_at(pipeline, settings, compute_capability, tape)


def has_code_at(
    pipeline: TorchPipeline, settings: Settings, compute_capability: str, tape: Tape
) -> bool:
    """Return whether a tape has code for what these settings choose, whatever their sizes."""
    return not lacks_code(pipeline, settings, compute_capability, tape)


def lacks_code(
    pipeline: TorchPipeline,
    settings: Settings,
    compute_capability: str,
    tape: Tape,
    kernel: str | None = None,
) -> bool:
    """Return whether a tape lacks code for what settings choose, or for another kernel."""
    from vramplan.engines.torch.facts import numbers_at

    facts = facts_of(pipeline, settings, compute_capability, tape)
    if kernel is not None:
        facts["kernel"] = kernel
    if not all(facts[name] in values for name, values in tape.known_facts.items()):
        return True
    return tape.lacks(facts, numbers_at(settings)) is not None


def facts_of(
    pipeline: TorchPipeline, settings: Settings, compute_capability: str, tape: Tape
) -> dict[str, str]:
    """Return the words that choose among what a tape has code for, its dtype's own included."""
    from vramplan.engines.torch.facts import facts_at

    facts = facts_at(pipeline, settings, compute_capability, tape.known_facts)
    # a VAE that fp16 does not cast makes bf16's events: the same width, and no cast
    dtype = _dtype(settings)
    is_cast = dtype != "fp16" or settings.get("vae_upcast", "on") == "on"
    return {**facts, **tape.dtype_facts.get(dtype if is_cast else "bf16", {})}


def _dtype(settings: Settings) -> str:
    return str(settings.get("dtype", "fp32"))


def bare(conditions: Conditions) -> Conditions:
    """Return the conditions without scratch."""
    return replace(conditions, workspace_bytes=NO_SCRATCH, cast_workspace_bytes={})


def at_most(conditions: Conditions, compute_capability: str) -> Conditions:
    """Return the conditions with the most scratch that is likely on an architecture."""
    most: dict[int, WorkspaceModel] = {}
    for size, model in conditions.cast_workspace_bytes.items():
        if isinstance(model, WitnessedScratch):
            most[size] = MostScratch(witnessed=model)
        else:
            most[size] = convolution_scratch(compute_capability, size).high
    return replace(
        conditions,
        workspace_bytes=most[conditions.element_bytes],
        cast_workspace_bytes=most,
    )


def others_at(conditions: Conditions, *, is_most: bool) -> Conditions:
    """Return the conditions with nothing, or the most, for layers that cuDNN was not asked about.

    What no architecture's cuDNN was asked about at all stays as it is.
    """
    others: dict[int, WorkspaceModel] = {
        size: OthersAt(witnessed=model, is_most=is_most)
        if isinstance(model, WitnessedScratch)
        else model
        for size, model in conditions.cast_workspace_bytes.items()
    }
    return replace(
        conditions,
        workspace_bytes=others[conditions.element_bytes],
        cast_workspace_bytes=others,
    )


def replay_run(
    tape: Tape,
    conditions: Conditions,
    compute_capability: str,
    *,
    expandable_segments: bool = False,
) -> Replayed:
    """Replay a run in its three scenarios and find their least limits."""
    from vramplan.engines.torch.rehearsals import find_least_limits, rehearse_once

    def rehearsed(changed: Conditions) -> Rehearsed:
        return rehearse_once(tape, changed, expandable_segments=expandable_segments)

    most = at_most(conditions, compute_capability)
    least, expected_least, high_least = find_least_limits(
        tape, conditions, most, expandable_segments=expandable_segments
    )
    least_live, high, expected = (
        rehearsed(changed).trace for changed in (bare(conditions), most, conditions)
    )
    peak_bytes = expected.allocated_peak_bytes  # a second run of the entry may add to the trace
    return Replayed(
        low=_scenario(least_live, least),
        expected=_scenario(expected, expected_least),
        high=_scenario(high, high_least),
        marks=_thin(_without_repeats(expected.marks)),
        warm_reserved_peak_bytes=rehearsed(conditions).warm_reserved_peak_bytes(),
        parts=parts_at(tape, conditions),
        is_asked=all(
            rehearsed(others_at(conditions, is_most=is_most)).trace.allocated_peak_bytes
            == peak_bytes
            for is_most in (False, True)
        ),
    )


def _without_repeats(marks: Sequence[Mark]) -> list[Mark]:
    """Return the marks without those that only say again what the one or two before them said."""
    kept: list[Mark] = []
    for mark in marks:
        kept.append(mark)
        for period in (1, 2):  # a denoising step is two marks: the UNet's, and the scheduler's
            if kept[-period:] == kept[-2 * period : -period]:
                del kept[-period:]
    return kept


def _thin(marks: Sequence[Mark]) -> tuple[Mark, ...]:
    """Return at most some dozens of marks a phase: its highest, its last, and every so many."""
    kept: list[Mark] = []
    for _, group in groupby(marks, key=lambda mark: mark.phase):
        phase = list(group)
        step = -(-len(phase) // _MOST_MARKS)
        highest = {
            max(range(len(phase)), key=lambda n: phase[n].allocated_peak_bytes),
            max(range(len(phase)), key=lambda n: phase[n].reserved_peak_bytes),
        }
        for n, mark in enumerate(phase):
            if n // 2 % step == 0 or n in highest or n >= len(phase) - 2:
                kept.append(mark)
    return tuple(kept)


def _scenario(trace: Trace, least: LeastLimit) -> Scenario:
    return Scenario(
        allocated_peak_bytes=trace.allocated_peak_bytes,
        reserved_peak_bytes=trace.reserved_peak_bytes,
        least_limit_bytes=least.limit_bytes,
        phase=least.phase,
        component=least.component,
    )


def parts_at(tape: Tape, conditions: Conditions) -> tuple[PartWeights, ...]:
    """Return a row for each component, or for each of its parts where the tape names parts."""
    rows = _all_parts(ById(tape), conditions.element_bytes)
    return tuple(row for row in rows if row.component not in conditions.skip_components)


@lru_cache(maxsize=16)  # of thousands of tensors, and asked for at every size of a plan
def _all_parts(taped: ById[Tape], element_bytes: int) -> tuple[PartWeights, ...]:
    tape, rows = taped.of, []
    for component, weights in tape.components.items():
        named = weights.parts or {"": tuple(range(len(weights.modules)))}
        for part, modules in named.items():
            sizes = (sum(weights.tensor_bytes(m, element_bytes)) for m in modules)
            rows.append(
                PartWeights(
                    name=tape.part_name(component, part),
                    component=component,
                    parameters=weights.part_parameters.get(part, weights.parameters),
                    weights_bytes=sum(sizes),
                )
            )
    return tuple(rows)


def has_defaults(pipeline: TorchPipeline, settings: Settings) -> bool:
    """True at the catalogue's defaults, of which results ship."""
    return all(
        settings.get(key) == value
        for key, value in pipeline.defaults.items()
        if key not in _NOT_REPLAYED
    )


def models_at(pipeline: TorchPipeline, settings: Settings, compute_capability: str) -> str:
    """Return all that an architecture decides of a replay: of equal ones the figures are equal."""
    dtype = str(settings.get("dtype", "fp32"))
    # as `facts_at` has it: diffusers' text encoders keep SDPA
    is_kept = pipeline.runtime == "diffusers"
    attention = "sdpa" if is_kept else str(settings.get("attention", "sdpa"))
    kernel = attention_kernel(compute_capability, attention, dtype)
    # a component may be cast to another width than the rest: SDXL's VAE
    scratch = "|".join(scratch_key(compute_capability, size, dtype) for size in _WIDTHS)
    cublas = cublas_band(compute_capability)[0].expected_bytes
    shared = f" sums={settings[MULTIPROCESSORS]}" if MULTIPROCESSORS in settings else ""
    return f"{kernel} scratch={scratch} cublas={cublas}{shared}"


def result_key(
    path: Path, pipeline: TorchPipeline, settings: Settings, compute_capability: str
) -> str:
    """Return the key of a result: the tape's bytes and everything else the figures depend on."""
    # another cache than the growing one is no other replay (`kv_cache`)
    idle = _NOT_REPLAYED | OF_CACHES.keys()
    idle = idle if is_grouped(settings) else idle | OF_GROUPS.keys()
    asked = sorted(key for key in settings.keys() - idle if settings[key] != IDLE.get(key))
    chosen = ",".join(f"{key}={settings[key]}" for key in asked)
    chosen += changes_key(pipeline, settings)
    models = f"{models_at(pipeline, settings, compute_capability)} load={pipeline.loading}"
    return f"{tape_key(path)} {pipeline.runtime} {chosen} {models}"
