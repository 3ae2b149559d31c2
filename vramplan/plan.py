"""What to change so that it fits: settings tried one after the other, cheapest first.

Each change is said in the user's own language: the line of Python, the flag or the variable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vramplan.catalog import CardChoice
from vramplan.errors import VramplanError
from vramplan.estimate.estimator import GGML_RUNTIMES
from vramplan.model import Advice, Pipeline, Settings, SettingValue, Verdict, VerdictKind
from vramplan.units import format_size
from vramplan.verdict import judge


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Settings to change, how a user says it, and what it costs."""

    settings: Mapping[str, SettingValue]
    line: str
    cost: str


def first_advice(
    pipeline: Pipeline,
    settings: Settings,
    verdict: Verdict,
    choice: CardChoice,
    *,
    folders: Sequence[Path],
    margin_bytes: int = 0,
    other_bytes: int | None = None,
) -> tuple[Advice, ...]:
    """Return the cheapest change that makes `verdict` fit, or the one that comes nearest.

    Nothing is returned for a verdict that fits already.
    """
    if verdict.kind is VerdictKind.FITS:
        return ()
    nearest: tuple[Change, Verdict] | None = None
    for change in changes(pipeline, settings):
        try:
            found, _ = judge(
                pipeline,
                {**settings, **change.settings},
                choice,
                folders=folders,
                margin_bytes=margin_bytes,
                other_bytes=other_bytes,
            )
        except VramplanError:  # this change is not recorded for these settings: try the next
            continue
        if found.kind is VerdictKind.FITS:
            return (_advice(change, found, verdict),)
        if nearest is None or found.need.expected_bytes < nearest[1].need.expected_bytes:
            nearest = (change, found)
    if nearest is None or nearest[1].need.expected_bytes >= verdict.need.expected_bytes:
        return ()
    return (_advice(nearest[0], nearest[1], verdict),)


def _advice(change: Change, found: Verdict, before: Verdict) -> Advice:
    needed = format_size(found.need.expected_bytes, up=True)
    effect = {
        VerdictKind.FITS: f"fits: needs {needed}",
        VerdictKind.TIGHT: f"tight: needs {needed}",
    }.get(found.kind, f"nearer, and not enough: needs {needed}")
    if found.kind is before.kind and found.kind is VerdictKind.TIGHT:
        effect = f"still tight: needs {needed}"
    return Advice(
        change=change.line,
        effect=effect,
        cost=change.cost,
        need_bytes=found.need.expected_bytes,
    )


def changes(pipeline: Pipeline, settings: Settings) -> Iterator[Change]:
    """Yield the changes these settings leave open, cheapest first, then what they give together."""
    single = list(
        _ggml_changes(pipeline, settings)
        if pipeline.runtime in GGML_RUNTIMES
        else _torch_changes(pipeline, settings)
    )
    yield from single
    tiling = [c for c in single if "vae_tiling" in c.settings]
    offload = [c for c in single if "offload" in c.settings]
    for first in tiling:
        for second in offload:
            yield Change(
                settings={**first.settings, **second.settings},
                line=f"{first.line}; {second.line}",
                cost=f"{first.cost}; {second.cost}",
            )


def _torch_changes(pipeline: Pipeline, settings: Settings) -> Iterator[Change]:
    owner = (
        "pipe" if len(pipeline.components) > 1 else "vae" if "vae_tiling" in settings else "model"
    )
    batch = settings.get("batch", 1)
    if isinstance(batch, int) and batch > 1 and settings.get("vae_slicing") == "off":
        yield Change(
            settings={"vae_slicing": "on"},
            line=f"{owner}.enable_vae_slicing()" if owner == "pipe" else "vae.enable_slicing()",
            cost="images are decoded one by one",
        )
    if settings.get("attention") in ("math", "sliced"):
        yield Change(
            settings={"attention": "sdpa"},
            line="leave attention at its default (fused kernels)",
            cost="nothing: it is faster too",
        )
    if settings.get("dtype") == "fp32" and settings.get("mode") != "train":
        yield Change(
            settings={"dtype": "fp16"},
            line="torch_dtype=torch.float16",
            cost="half precision; faster on every card since Volta",
        )
    if settings.get("vae_tiling") == "off":
        yield Change(
            settings={"vae_tiling": "on"},
            line=f"{owner}.enable_vae_tiling()" if owner == "pipe" else "vae.enable_tiling()",
            cost="a slower decode; seams are blended and may show in smooth areas",
        )
    if settings.get("safety_checker") == "on":
        yield Change(
            settings={"safety_checker": "off"},
            line="safety_checker=None",
            cost="images are no longer checked",
        )
    if settings.get("expandable_segments") == "off":
        yield Change(
            settings={"expandable_segments": "on"},
            line="PYTORCH_ALLOC_CONF=expandable_segments:True",
            cost="nothing on Linux; not available on Windows",
        )
    if settings.get("offload") == "none":
        yield Change(
            settings={"offload": "model"},
            line="pipe.enable_model_cpu_offload()",
            cost="components wait in system memory and move for every image",
        )
        yield Change(
            settings={"offload": "sequential"},
            line="pipe.enable_sequential_cpu_offload()",
            cost="every layer moves for every step: many times slower",
        )
    yield from _smaller_batches(settings)


def _smaller_batches(settings: Settings) -> Iterator[Change]:
    batch = settings.get("batch", 1)
    while isinstance(batch, int) and batch > 1:
        batch //= 2
        yield Change(
            settings={"batch": batch},
            line=f"a batch of {batch}",
            cost="more runs for as many results",
        )


def _ggml_changes(pipeline: Pipeline, settings: Settings) -> Iterator[Change]:
    is_ollama = pipeline.runtime == "ollama"
    if settings.get("kv_type") == "f16" and settings.get("flash_attention") != "off":
        yield Change(
            settings={"kv_type": "q8_0"},
            line="OLLAMA_KV_CACHE_TYPE=q8_0" if is_ollama else "-ctk q8_0 -ctv q8_0",
            cost="a KV cache of half the size, with little loss",
        )
    context = settings.get("context")
    while isinstance(context, int) and context > 2048:
        context //= 2
        yield Change(
            settings={"context": context},
            line=f"OLLAMA_CONTEXT_LENGTH={context}" if is_ollama else f"-c {context}",
            cost=f"the conversation and its images must fit {context} tokens",
        )
    ubatch = settings.get("ubatch")
    if isinstance(ubatch, int) and ubatch > 128:
        yield Change(
            settings={"ubatch": 128},
            line='"num_batch": 128 in the request\'s options' if is_ollama else "-ub 128",
            cost="prompts are read more slowly",
        )
