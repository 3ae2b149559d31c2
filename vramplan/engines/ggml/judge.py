"""The verdict on a ggml engine: what it does by itself on a card that is too small for all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vramplan.budget.verdict import Graded, grade, spills, without_words
from vramplan.budget.words import compare_with_budget, describe_room
from vramplan.engines.ggml import lm_studio
from vramplan.engines.ggml.engine_pools import language_pool
from vramplan.engines.ggml.estimate import (
    estimate_placed,
    estimate_run,
    estimate_whole,
    free_beside_contexts,
    run_on,
)
from vramplan.engines.ggml.gpu_seats import Gpu, gpus_of
from vramplan.engines.ggml.layer_fit import Fit, has_projector_on_gpu, least_free_bytes
from vramplan.engines.ggml.load_plan import GgmlRun
from vramplan.engines.ggml.ollama_ps import in_short
from vramplan.engines.ggml.ollama_versions import version_of
from vramplan.engines.ggml.pipeline import GgmlPipeline
from vramplan.engines.ggml.witnessed import is_counted
from vramplan.model import (
    PROJECTOR,
    Band,
    Buffer,
    Card,
    CardShare,
    Estimate,
    Judgement,
    LineKind,
    Settings,
    VerdictKind,
    buffer_bytes,
)
from vramplan.quick_dataclass import replace
from vramplan.setting_values import AUTO
from vramplan.units import format_size

_LANGUAGE = frozenset({"language_model"})
#: Ollama: server/sched.go (nextLowerAutoNumCtx)
_LOWER_CONTEXTS = (32_768, 4_096)


def judge_ggml(
    pipeline: GgmlPipeline, settings: Settings, card: Card, budget_bytes: int
) -> Judgement:
    """Return what the engine does on a card.

    Raises as `estimate_ggml` does.
    """
    found = _judge(pipeline, settings, card, budget_bytes)
    if pipeline.is_ollama and found.kind is VerdictKind.OOM:
        found = _retried(pipeline, settings, card, budget_bytes, found)
    if pipeline.is_lm_studio:
        said = lm_studio.guardrail_in_words(found.estimate.settings, found.estimate.buffers)
    else:
        said = in_short(found.estimate.notes)
    if not said or (found.kind is VerdictKind.OOM and not pipeline.is_lm_studio):
        return found
    return replace(found, reason=f"{found.reason}; {said}")


def _retried(
    pipeline: GgmlPipeline, settings: Settings, card: Card, budget_bytes: int, failed: Judgement
) -> Judgement:
    """Return what Ollama comes to after a load that ran out of memory.

    It tries once more with the projector on the CPU, then with the next lower context where nobody
    gave one. A load that an image alone is too large for has come to its end long before. Source:
    ollama/ollama, llm/llama_server.go (retryWithMMProjCPUOffload), server/sched.go
    (reduceAutoNumCtxForLoadOOM).
    """
    version = version_of(str(settings.get("engine", "")))
    if version is not None and not version.has_server:
        return failed
    image = pipeline.defaults.get("image")
    if image is not None and settings.get("image", image) != image:
        loaded = _judge(pipeline, {**settings, "image": image}, card, budget_bytes)
        if loaded.kind is not VerdictKind.OOM:
            rest = failed.reason.removeprefix(f"fails to {failed.estimate.need.phase}")
            return replace(failed, reason=f"loads, and fails at an image of this size{rest}")
    for change, words in _retries(settings, failed.estimate):
        again = _judge(pipeline, {**settings, **change}, card, budget_bytes)
        if again.kind is not VerdictKind.OOM:
            said = f"the first try runs out of memory, and Ollama loads it again with {words}"
            return replace(again, reason=f"{again.reason}; {said}")
    return failed


def _retries(settings: Settings, failed: Estimate) -> Iterator[tuple[Settings, str]]:
    """Yield what Ollama changes, one try after the other, and how it is called."""
    host: Settings = {"mmproj_offload": "off"}
    has_projector = any(one.name == PROJECTOR and one.device == "gpu" for one in failed.components)
    on_cpu = "the projector on the CPU"
    if has_projector:
        yield host, on_cpu
    tokens = _context_of(failed) or 0
    lower = next((one for one in _LOWER_CONTEXTS if tokens > one), None)
    if settings.get("context") == AUTO and lower is not None:
        words = f"a context of {lower:,} tokens"
        yield {"context": lower}, words
        if has_projector:
            yield {**host, "context": lower}, f"{words} and {on_cpu}"


def _judge(pipeline: GgmlPipeline, settings: Settings, card: Card, budget_bytes: int) -> Judgement:
    gpus = gpus_of(card, budget_bytes)
    run = run_on(pipeline, settings, gpus)
    free = free_beside_contexts(run, gpus)
    fit, placed = estimate_run(run, gpus, free)
    asked = placed if _is_as_asked(run, fit, free[0]) else estimate_run(run, gpus, None)[1]
    left = _context_left(asked, placed)
    cards = _judge_cards(placed, card, settings)
    is_free = settings.get("gpu_layers") == "auto" and settings.get("gpu_offload", AUTO) == AUTO
    if is_free and _has_moved(asked, placed):
        whole = estimate_whole(pipeline, {**settings, **left}, gpus)
        # the need that decides is the whole model's; what is placed is what will run
        shown = replace(placed, need=whole.need)
        reason = _split_reason(placed, whole, budget_bytes, bool(left))
        return Judgement(
            estimate=shown, kind=VerdictKind.OFFLOAD, reason=reason, is_split=True, cards=cards
        )
    if cards:
        given_up = ""
        if _worst(cards) is VerdictKind.OOM:
            # "compute buffer allocation failed, retrying without pipeline parallelism"
            less = estimate_placed(pipeline, settings, gpus, may_pipeline=False)
            others = _judge_cards(less, card, settings)
            if _worst(others) is not VerdictKind.OOM:
                placed, cards = less, others
                given_up = (
                    "; with several batches on their way it would not fit: the engine has the "
                    "cards work one after the other"
                )
        kind = _worst(cards)
        reason = _cards_reason(placed, cards, kind, bool(left)) + given_up
        return Judgement(estimate=placed, kind=kind, reason=reason, cards=cards)
    kind = grade(placed.need.band, budget_bytes, spills=spills(settings))
    reason = _ggml_reason(placed, kind, budget_bytes, bool(left))
    return Judgement(estimate=placed, kind=kind, reason=reason)


def _worst(cards: tuple[CardShare, ...]) -> VerdictKind:
    return max((one.kind for one in cards if one.kind), key=lambda kind: kind.rank)


def _judge_cards(placed: Estimate, card: Card, settings: Settings) -> tuple[CardShare, ...]:
    """Return each of several cards with its verdict."""
    if not placed.cards:
        return ()
    return tuple(
        replace(
            share,
            budget_bytes=seat.budget_bytes,
            kind=grade(share.need, seat.budget_bytes, spills=spills(settings)),
        )
        for share, seat in zip(placed.cards, card.seats, strict=True)
    )


class GgmlGrader:
    """Grades one model on one card after another (`budget.verdict.Grader`)."""

    def __init__(self, pipeline: GgmlPipeline, settings: Settings) -> None:
        self._pipeline = pipeline
        self._settings = settings
        self._wholes: list[_Whole] = []

    def __call__(self, card: Card, budget_bytes: int) -> Graded:
        """Return the figures of `judge_ggml`."""
        gpus = () if card.seats else gpus_of(card, budget_bytes)
        whole = self._find_whole(gpus) if gpus else None
        if whole is not None and whole.graded is not None:
            graded = whole.on(gpus[0].context, budget_bytes, spills=spills(self._settings))
            if graded.kind is not VerdictKind.OOM:  # the engine may try again
                return graded
        graded = without_words(judge_ggml(self._pipeline, self._settings, card, budget_bytes))
        if whole is not None and whole.graded is None and graded.kind is not VerdictKind.OOM:
            whole.keep(graded, gpus[0].context)
        return graded

    def _find_whole(self, gpus: Sequence[Gpu]) -> _Whole | None:
        """Return what is known of a run that a card takes whole, or None where it may not."""
        run = run_on(self._pipeline, self._settings, gpus)
        pool = language_pool(run.model, run.batch, gpus[0].compute_capability)
        alike = replace(run, compute_capability="")
        found = next((one for one in self._wholes if one.pool == pool and one.run == alike), None)
        if found is None:
            found = _Whole(alike, pool)
            self._wholes.append(found)
        (free,) = free_beside_contexts(run, gpus)
        return found if found.is_counted and free >= found.least_free_bytes else None


class _Whole:
    """A run, and its figures on every card that takes all of it: only contexts and budgets differ.

    Its architecture is left out: beyond what the run and `pool` say of it, it changes nothing.
    `graded` is None until it was graded once.
    """

    def __init__(self, run: GgmlRun, pool: Band) -> None:
        self.run = run
        self.pool = pool
        self.is_counted = is_counted(run)
        self.least_free_bytes = least_free_bytes(run) if self.is_counted else 0
        self.graded: Graded | None = None
        self._beside = Band.exactly(0)

    def keep(self, graded: Graded, context: Band) -> None:
        """Keep the figures on a card whose context takes so much."""
        self.graded = graded
        self._beside = context

    def on(self, context: Band, budget_bytes: int, *, spills: bool) -> Graded:
        """Return the figures beside another context."""
        assert self.graded is not None
        need, beside = self.graded.need, self._beside
        band = Band(
            low_bytes=need.band.low_bytes - beside.low_bytes + context.low_bytes,
            expected_bytes=need.band.expected_bytes
            - beside.expected_bytes
            + context.expected_bytes,
            high_bytes=need.band.high_bytes - beside.high_bytes + context.high_bytes,
        )
        kind = grade(band, budget_bytes, spills=spills)
        return replace(self.graded, kind=kind, need=replace(need, band=band))


def _is_as_asked(run: GgmlRun, fit: Fit, free_bytes: int) -> bool:
    """Return whether it is certain that a run is loaded as where there is more than enough."""
    return (
        is_counted(run)
        and fit.run is run
        and fit.on_gpu == run.asked_layers
        and fit.shares == run.shares
        and has_projector_on_gpu(run, free_bytes) == has_projector_on_gpu(run, None)
    )


def _context_of(found: Estimate) -> int | None:
    tokens = found.settings.get("context")
    return tokens if isinstance(tokens, int) else None


def _context_left(asked: Estimate, placed: Estimate) -> dict[str, int]:
    """Return the context as a setting, where the engine takes less of it than it would."""
    before, now = _context_of(asked), _context_of(placed)
    return {} if now is None or before == now else {"context": now}


def _has_moved(asked: Estimate, placed: Estimate) -> bool:
    """True where the engine keeps more on the CPU than it was told to."""

    def on_cpu(found: Estimate) -> list[str]:
        return [component.name for component in found.components if component.device == "cpu"]

    return asked.layers != placed.layers or on_cpu(asked) != on_cpu(placed)


def _ggml_reason(
    found: Estimate, kind: VerdictKind, budget_bytes: int, has_less_context: bool
) -> str:
    placed = _layers(found) + _cut_context(found, has_less_context)
    if kind is VerdictKind.OOM:
        compared = compare_with_budget(found.need.band, budget_bytes)
        return f"fails to {found.need.phase} with {placed}: {compared}"
    if kind is VerdictKind.OFFLOAD:
        excess = format_size(found.need.band.expected_bytes - budget_bytes, up=True)
        return (
            f"spills {excess} into system memory and slows down with {placed}: "
            f"{compare_with_budget(found.need.band, budget_bytes)}"
        )
    return f"{placed}: {describe_room(found.need.band, kind, budget_bytes)}"


def _cards_reason(
    found: Estimate, cards: tuple[CardShare, ...], kind: VerdictKind, has_less_context: bool
) -> str:
    placed = _layers(found) + _cut_context(found, has_less_context)
    said = "; ".join(_card_in_words(one) for one in cards)
    if kind is VerdictKind.OOM:
        worst = next(one for one in cards if one.kind is kind)
        return f"fails to {found.need.phase} on {worst.device} with {placed}: {said}"
    return f"{placed}: {said}"


def _card_in_words(share: CardShare) -> str:
    """Return ``gpu 1 (rtx-3060-12gb) 13 layers: 400 MiB to spare``."""
    assert share.budget_bytes is not None
    assert share.kind is not None
    layers = f"{share.layers} layer{'s' * (share.layers != 1)}"
    if share.kind.is_failure:
        room = compare_with_budget(share.need, share.budget_bytes)
    else:
        room = describe_room(share.need, share.kind, share.budget_bytes)
    return f"{share.device} ({share.card}) {layers}: {room}"


def _cut_context(found: Estimate, has_less_context: bool) -> str:
    if not has_less_context:
        return ""
    return f", the context cut to {_context_of(found):,} tokens"


def _split_reason(
    placed: Estimate, whole: Estimate, budget_bytes: int, has_less_context: bool
) -> str:
    aside = [c.name for c in placed.components if c.device == "cpu" and c.name not in _LANGUAGE]
    layers = placed.layers
    assert layers is not None
    rest = ["the rest"] if layers.on_gpu < layers.total else []
    where = f", {' and '.join(rest + aside)} on the CPU" if rest or aside else ""
    needed = format_size(whole.need.band.expected_bytes, up=True)
    free = format_size(budget_bytes, up=False)
    return (
        f"{_layers(placed)}{where}{_cut_context(placed, has_less_context)}: on the GPU all of it "
        f"needs {needed} and the margin that the engine keeps free, and {free} are available; "
        f"{_both_sides(placed)}"
    )


def _both_sides(placed: Estimate) -> str:
    """Return what is on the GPU and what in host memory."""
    assert placed.buffers
    return "; ".join(
        f"{where} {_listed(placed.buffers, on_host=on_host)}"
        for where, on_host in (("the GPU holds", False), ("host memory", True))
    )


#: what is told of each side
_SIDE = {
    "weights": (LineKind.WEIGHTS,),
    "KV cache": (LineKind.KV_CACHE,),
    "compute buffers": (LineKind.COMPUTE_BUFFER, LineKind.PROJECTOR_COMPUTE),
}


def _listed(buffers: tuple[Buffer, ...], *, on_host: bool) -> str:
    """Return ``702 MiB of weights, 48 MiB of KV cache``; what is empty is left out."""
    sizes = {name: buffer_bytes(buffers, *kinds, on_host=on_host) for name, kinds in _SIDE.items()}
    return ", ".join(
        f"{format_size(size, up=True)} of {name}" for name, size in sizes.items() if size
    )


def _layers(found: Estimate) -> str:
    if found.layers is None:
        return found.title
    if found.layers.is_whole:
        return f"all {found.layers.total} layers on the GPU"
    return found.layers.in_words()
