"""Graphs of made models at many settings, each with what its numbers may be made of."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tools.graphs.asking import Asking, EngineError
from tools.graphs.headers import REQUIRED, Style, all_tensors, fused, header, keys
from tools.graphs.sketch import SketchPart, draw
from vramplan.engines.ggml.closed_form import reserved_tokens
from vramplan.engines.ggml.load_plan import GgmlRun, read_run
from vramplan.engines.ggml.open import open_header
from vramplan.engines.ggml.tape_quantities import Quantities, features
from vramplan.settings import format_setting, resolve_settings
from vramplan.sources.gguf_header import GgufFile, Value

_MISSING = re.compile(r"key not found in model: [^.]+\.([a-z0-9_.]+)")
#: flash attention, and how sequences share a cache: one alone, several apart, several in one
MODES = tuple((flash, sharing) for flash in (True, False) for sharing in ("one", "apart", "in one"))
_BLOCKS = ("q8_0", "q4_0", "q5_1")


def dice(seed: int) -> random.Random:
    """Return the draws of a made model."""
    return random.Random(f"settings {seed}")  # noqa: S311  # a sample, not a secret


@dataclass
class Sample:
    """A graph of a header at settings."""

    header: GgufFile
    run: GgmlRun
    told: Mapping[str, Any]
    quantities: Quantities
    features: tuple[Mapping[str, object], ...]
    parts: list[SketchPart]
    inputs: list[str]


def all_settings(
    rng: random.Random, *, is_single: bool = False, has_flash: bool = True
) -> list[tuple[tuple[bool, str], dict[str, object]]]:
    """Return settings of every mode, with caches of every kind: plain, in blocks, and mixed."""
    found = []
    for mode in MODES:
        flash, sharing = mode
        if flash and not has_flash:
            continue
        kinds = [(False, False)]
        if flash:  # without it nobody has blocks: values cannot be in them
            kinds.append((True, True))
        if flash and sharing == "one":
            kinds += [(True, False), (False, True)]
        found += [(mode, draw_settings(rng, mode, one)) for one in kinds]
    if is_single:  # keys and values are of one type
        return [(mode, {**one, "value_type": one["key_type"]}) for mode, one in found]
    return found


def draw_settings(
    rng: random.Random, mode: tuple[bool, str], in_blocks: tuple[bool, bool] = (False, False)
) -> dict[str, object]:
    """Return settings of a mode, with keys and values in blocks or not."""
    flash, sharing = mode
    found: dict[str, object] = {
        "context": 256 * rng.randrange(3, 40),
        "ubatch": 12 * rng.randrange(4, 43),
        "flash_attention": "on" if flash else "off",
        "key_type": rng.choice(_BLOCKS) if in_blocks[0] else "f16",
        "value_type": rng.choice(_BLOCKS) if in_blocks[1] else "f16",
        "parallel": 1,
        "kv_unified": "off",
        "gpu_layers": 0,
        "engine": "b11549",
    }
    if all(in_blocks):  # so that one is not taken for the other
        found["value_type"] = rng.choice([one for one in _BLOCKS if one != found["key_type"]])
    if sharing != "one":
        parallel = rng.choice((2, 3, 4, 6))
        found["parallel"] = parallel
        found["context"] = 256 * parallel * rng.randrange(3, 16)
        if sharing == "in one":
            found["kv_unified"] = "on"
    return found


def run_of(made: GgufFile, settings: Mapping[str, object]) -> GgmlRun:
    """Return a header's run at settings. Raises VramplanError."""
    pipeline = open_header(made)
    chosen = resolve_settings(pipeline, {**pipeline.defaults, **settings})
    return read_run(pipeline, chosen, "8.6")


def request_of(run: GgmlRun, layers: object = 0) -> dict[str, object]:
    """Return what the engine is asked for a run, with so many layers on a card."""
    batch = run.batch
    settings: dict[str, object] = {
        key: format_setting(key, value) for key, value in run.settings.items()
    }
    tokens = reserved_tokens(batch)
    return settings | {
        "load_mtp": "off",
        "context": str(batch.context * batch.streams),
        "gpu_layers": layers,
        "cpu_moe": "0",
        "flash_attention": "on" if batch.has_flash else "off",
        "tokens": tokens,
        "outputs": min(batch.sequences, tokens),
    }


def windows_of(run: GgmlRun) -> list[bool]:
    """Return which of a model's layers see a window."""
    assert run.model.language is not None
    return [layer.is_windowed for layer in run.model.language.layers]


def record(asking: Asking, made: GgufFile, wanted: Sequence[Mapping[str, object]]) -> list[Sample]:
    """Return a header's graphs at each of the settings.

    Raises EngineError, UnlikeError, VramplanError.
    """
    runs = [run_of(made, one) for one in wanted]
    told = asking.graphs(made, [request_of(one) for one in runs])
    found = []
    for run, graph in zip(runs, told, strict=True):
        quantities = Quantities(run.model, run.batch)
        parts, inputs = draw(graph, windows_of(run), quantities.cache_of)
        found.append(
            Sample(made, run, graph, quantities, features(run.model, run.batch), parts, inputs)
        )
    return found


def made_header(
    asking: Asking, name: str, style: Style, seed: int, layers: int, kept: Any,
    more: Mapping[str, Value] | None = None,
) -> GgufFile:  # fmt: skip
    """Return a header with drawn numbers and those of the engine's tensors that are kept."""
    found = keys(name, style, seed, layers) | dict(more or {})
    while True:
        try:
            every = all_tensors(asking, header(name, found))
        except EngineError as problem:
            missing = _MISSING.search(str(problem))
            if missing is None or missing[1] in found or missing[1] not in REQUIRED:
                raise
            found[missing[1]] = REQUIRED[missing[1]]
        else:
            break
    tensors = [one for one in every if kept(one.name)]
    there = {one.name for one in tensors}
    tensors += [
        one
        for one in fused(every)
        if kept(one.name) and one.name.replace("attn_qkv", "attn_q") not in there
    ]
    return header(name, found, tensors)
