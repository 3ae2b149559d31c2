"""The changes that a ggml engine's settings leave open, as the program that runs it takes them."""

from __future__ import annotations

from collections.abc import Iterator

from vramplan.budget.change import LAST_RESORT, LITTLE, MUCH, NO_COST, NOTHING, SOME, Change
from vramplan.engines.ggml.pipeline import GgmlPipeline
from vramplan.engines.ggml.typed import OLLAMA, is_said, line, program_of
from vramplan.model import Settings, SettingValue
from vramplan.setting_values import NONE


def changes(pipeline: GgmlPipeline, settings: Settings) -> Iterator[Change]:
    """Yield the changes that these settings leave open, those with a lower price first."""
    program = program_of(pipeline)
    yield from _window_changes(program, settings)
    yield from _cache_changes(program, settings)
    ubatch = settings.get("ubatch")
    if isinstance(ubatch, int) and ubatch > 128:
        yield Change(
            settings={"ubatch": 128},
            line=line("ubatch", program, 128),
            cost="prompts are read more slowly",
            price=LITTLE,
        )
    if settings.get("gpu_layers") == "auto":
        yield Change(
            settings={"gpu_layers": "all"},
            line=line("all layers", program),
            cost="nothing is kept free: it fails, instead of using the CPU, should it not fit "
            "after all",
            price=SOME,
        )
    yield from _parts_beside(program, settings)
    parallel = settings.get("parallel")
    if pipeline.is_ollama and isinstance(parallel, int) and parallel > 1:
        yield Change(
            settings={"parallel": 1},
            line=line("one request", program),
            cost="requests wait for one another",
            price=SOME,
        )
    yield from _smaller_contexts(program, settings)
    yield from _expert_changes(pipeline, program, settings)
    if settings.get("kv_offload") == "on":
        yield Change(
            settings={"kv_offload": "off"},
            line=line("cache on the host", program),
            cost="attention is computed on the CPU: the longer the conversation, the slower",
            price=MUCH,
        )
    if settings.get("gpu_layers", "auto") != "auto":
        yield Change(
            settings={"gpu_layers": "auto"},
            line=line("layers as they fit", program),
            cost="layers that do not fit run on the CPU",
            price=LAST_RESORT,
        )


def not_modelled(pipeline: GgmlPipeline) -> Iterator[tuple[str, str]]:
    """Yield what else people do for a model like this one, and why it is not tried."""
    knows = "mmproj_offload" in pipeline.defaults
    if pipeline.has_projector and not pipeline.is_ollama and not knows:
        yield "--no-mmproj-offload", "the catalogue's entry has no setting for it"


def _parts_beside(program: str, settings: Settings) -> Iterator[Change]:
    """Yield what is loaded beside a model and may be elsewhere, or left out."""
    what = "projector on the CPU"
    if settings.get("mmproj_offload") == "on" and is_said(what, program):
        yield Change(
            settings={"mmproj_offload": "off"},
            line=line(what, program),
            cost="images are read on the CPU: seconds for each",
            price=SOME,
        )
    what = "nothing guessed ahead"
    drafts = settings.get("draft", NONE) != NONE
    # the layers that guess are the model's own, which llama-server is not told to leave out
    guesses = settings.get("load_mtp") == "on" and program == OLLAMA
    if (drafts or guesses) and is_said(what, program):
        yield Change(
            settings={"draft": NONE} if drafts else {"load_mtp": "off"},
            line=line(what, program),
            cost="every token is computed by the model itself: slower",
            price=SOME,
        )


def _window_changes(program: str, settings: Settings) -> Iterator[Change]:
    """Yield what makes the caches smaller of layers that see a window; a model may have none."""
    if settings.get("swa_full") == "on":
        yield Change(
            settings={"swa_full": "off"},
            line=line("windows alone", program),
            cost="a conversation changed further back than the window is read anew",
            price=LITTLE,
        )
    elif "swa_full" in settings and settings.get("parallel", 1) != 1:
        # of a number of requests each has its part of the context, and all have a window
        yield Change(
            settings={"parallel": 1},
            line=line("one request", program),
            cost="requests wait for one another",
            price=LITTLE,
        )


def _cache_changes(program: str, settings: Settings) -> Iterator[Change]:
    """Yield smaller caches; values in blocks need flash attention, which is turned on with them."""
    flash: dict[str, SettingValue] = {}
    flag = ""
    if settings.get("flash_attention") == "off":
        flash, flag = {"flash_attention": "auto"}, line("flash attention", program)
        yield Change(settings=flash, line=flag, cost=NO_COST, price=NOTHING)
    if settings.get("kv_type") != "f16":
        return
    for kind, cost, price in (
        ("q8_0", "a KV cache of half the size, with little loss", LITTLE),
        ("q4_0", "a KV cache of a quarter of the size: answers get worse", MUCH),
    ):
        yield Change(
            settings={**flash, "kv_type": kind},
            line=f"{flag} {line('cache type', program, kind)}".lstrip(),
            cost=cost,
            price=price,
            ladder="kv_type",
        )


def _smaller_contexts(program: str, settings: Settings) -> Iterator[Change]:
    context, step = settings.get("context"), 0
    while isinstance(context, int) and context > 2048:
        context //= 2
        yield Change(
            settings={"context": context},
            line=line("context", program, context),
            cost=f"the conversation and its images must fit {context} tokens",
            price=SOME + step,
            ladder="context",
        )
        step += 1


def _expert_changes(pipeline: GgmlPipeline, program: str, settings: Settings) -> Iterator[Change]:
    """Yield more and more layers whose experts stay in host memory, up to all.

    An engine that may choose the layers itself does so with the experts too.
    """
    bounds = pipeline.constraints.get("cpu_moe")
    layers = bounds.maximum if bounds is not None else None
    if layers is None or settings.get("gpu_layers", "auto") == "auto":
        return
    now = settings.get("cpu_moe", 0)
    steps = [-(-layers * eighth // 8) for eighth in range(1, 9)]
    for place, count in enumerate(dict.fromkeys(steps)):
        if isinstance(now, int) and count > now:
            yield Change(
                settings={"cpu_moe": count},
                line=line("experts", program, count),
                cost=f"the experts of {count} of {layers} layers are computed on the CPU",
                price=MUCH + place,
                ladder="cpu_moe",
            )
