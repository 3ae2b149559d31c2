"""The program that plans for a card that is not there: `python -m … REQUEST`, a JSON object.

It runs in a process of its own, prints what the engine prints from INFO on, and ends at once.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from vramplan.engines.ggml.draft_guesses import GUESSES
from vramplan.engines.ggml.witness.llama_library import (
    add_adapters,
    context_parameters,
    expert_patterns,
    fit,
    load,
    model_parameters,
    open_library,
    override_tensors,
    share_out,
)
from vramplan.engines.ggml.witness.pretended_card import PretendedCard, plug_in
from vramplan.engines.ggml.witness.unread import leave_data_unread
from vramplan.errors import MissingError
from vramplan.quick_typing import Any, cast
from vramplan.setting_values import (
    AUTO,
    NONE,
    experts_of,
    files_of,
    key_type,
    overrides_of,
    split_of,
    value_type,
)
from vramplan.sources.block_sizes import TYPES

#: asks for the context of the layers that guess ahead, beside the model's (llama_context_type)
NEXT_CONTEXT = "next_context"
#: asks for the graph with the LoRA adapters in it, beside the one that is reserved without them
WITH_ADAPTERS = "with_adapters"
#: what is printed behind all that the engine prints of its graph with adapters
ADAPTERS_DONE = "the graph with adapters is reserved"
_NUMBERS = {name: number for number, name in TYPES.items()}
_FLASH = {"auto": -1, "off": 0, "on": 1}
#: enum llama_pooling_type
_POOLINGS = {"auto": -1, "none": 0, "mean": 1, "cls": 2, "last": 3, "rank": 4}
_EVERY_LAYER = 1 << 20
_MOST_LAYERS = 1_000
#: for the engine: as many tokens as the model was trained on, and fewer where they do not fit
_OWN_CONTEXT = 0
_SERVER_SLOTS = 4
#: what the engine says, in debugging, of a tensor that is not where its layer is
_KEPT_ON_HOST = b"buffer type overridden"
_INFO = 2
_DEBUG = 1


def request_of(
    model: Path,
    settings: Mapping[str, object],
    card: PretendedCard | None,
    package: str,
    others: Sequence[PretendedCard] = (),
) -> str:
    """Return the program's argument for a model at a pipeline's settings; on the CPU, no card.

    `others` are the cards beside the first.
    """
    cards = () if card is None else (card, *others)
    layers, context = settings.get("gpu_layers", "auto"), settings.get("context", 4096)
    if layers != "auto":
        layers = _EVERY_LAYER if layers == "all" else int(str(layers))
    first, stop = experts_of(settings.get("cpu_moe", 0))
    parallel, unified = settings.get("parallel", 1), settings.get("kv_unified", "off")
    if parallel == "auto":  # what the server has by itself; its library has no such choice
        parallel, unified = _SERVER_SLOTS, "on"
    return json.dumps(
        {
            "model": str(model),
            "package": package,
            "context": _OWN_CONTEXT if context == "auto" else int(str(context)),
            "ubatch": int(str(settings.get("ubatch", 512))),
            "batch": int(str(settings.get("batch_tokens", 0))),
            "guesses": GUESSES if settings.get("draft", NONE) != NONE else 0,
            "embedding": settings.get("embedding") == "on",
            "pooling": settings.get("pooling", AUTO),
            "overrides": overrides_of(settings.get("override_tensor", NONE)),
            "parallel": int(str(parallel)),
            "unified": unified == "on",
            "whole_window": settings.get("swa_full") == "on",
            "key_type": key_type(settings),
            "value_type": value_type(settings),
            "holds_cache": settings.get("kv_offload", "on") != "off",
            "loads_mtp": settings.get("load_mtp") == "on",
            "kind": 1 if settings.get(NEXT_CONTEXT) == "on" else 0,
            "adapters": files_of(settings.get("lora"))
            if settings.get(WITH_ADAPTERS) == "on"
            else (),
            "flash": settings.get("flash_attention", "auto"),
            "gpu_layers": layers,
            "cpu_moe": [first, min(stop, _MOST_LAYERS)],
            "copies_weights": settings.get("op_offload", True),
            "split_mode": settings.get("split_mode", "layer"),
            "main_gpu": int(str(settings.get("main_gpu", 0))),
            "tensor_split": split_of(settings.get("tensor_split", AUTO)),
            "cards": [one.told() for one in cards],
        }
    )


def main(request: Mapping[str, object]) -> None:
    """Do what a request asks for. Raises MissingError where the engine is not a known one."""
    library = open_engine(request)
    told: Any = request["cards"]
    cards = [PretendedCard(**one) for one in told]
    devices = plug_in(library, cards) if cards else None
    say = _speaker()
    library.llama_log_set(say, None)
    library.llama_backend_init()
    model, context = parameters(library, request)
    path = Path(str(request["model"]))
    if not cards:
        model.gpu_layers = 0
    elif request["gpu_layers"] == "auto":
        fit(library, path, model, context, [card.margin_bytes for card in cards])
        library.llama_log_set(say, None)
    else:
        model.gpu_layers = request["gpu_layers"]
    loaded = load(library, path, model, context)
    adapters = cast("list[str]", request["adapters"])
    if adapters and loaded is not None:
        add_adapters(library, *loaded, adapters)
        sys.stderr.write(f"{ADAPTERS_DONE}\n")
    del devices


def open_engine(request: Mapping[str, object]) -> ctypes.CDLL:
    """Return the library of the package that a request names. Raises MissingError."""
    spec = importlib.util.find_spec(str(request["package"]))
    if spec is None or not spec.submodule_search_locations:
        raise MissingError(f"{request['package']} is not installed")
    library = open_library(Path(spec.submodule_search_locations[0]))
    leave_data_unread(Path(library._name))  # the path that it was opened by
    return library


def parameters(
    library: ctypes.CDLL, request: Mapping[str, object]
) -> tuple[ctypes.Structure, ctypes.Structure]:
    """Return what a model is loaded with, and its context made, at a request's settings."""
    model, context = model_parameters(library), context_parameters(library)
    model.use_extra_buffers = False  # weights as in the file, none packed anew for the CPU
    context.context, context.ubatch = request["context"], request["ubatch"]
    context.batch = request["batch"] or max(2048, context.ubatch)
    context.sequences = context.outputs = request["parallel"]  # one token of each gives logits
    guesses = int(str(request["guesses"]))  # looked at with the token before them
    context.outputs = min(context.batch, context.sequences * (1 + guesses))
    context.embeddings = request["embedding"]
    context.pooling = _POOLINGS[str(request["pooling"])]
    if context.embeddings or context.pooling > 0:
        context.outputs = context.batch  # as the server has it: a result for every token
    context.type_k = _NUMBERS[str(request["key_type"])]
    context.type_v = _NUMBERS[str(request["value_type"])]
    context.offload_cache = request["holds_cache"]
    model.load_mtp = request["loads_mtp"]
    context.kind = request["kind"]
    context.flash = _FLASH[str(request["flash"])]
    context.unified, context.whole_window = request["unified"], request["whole_window"]
    context.offload_ops = request["copies_weights"]
    shares = cast("list[float]", request["tensor_split"])
    share_out(library, model, str(request["split_mode"]), int(str(request["main_gpu"])), shares)
    first, stop = cast("list[int]", request["cpu_moe"])
    told: Any = request["overrides"]
    overrides = [(str(one[0]), one[1]) for one in told]
    if overrides or stop:
        override_tensors(library, model, [*overrides, *expert_patterns(range(first, stop))])
    return model, context


def _speaker() -> object:
    """Return a function for the engine's log; a line may come in parts, of the level before."""
    last = _INFO

    def speak(level: int, text: bytes, _: int) -> None:
        nonlocal last
        last = last if level > _INFO + 2 else level
        if last != _DEBUG or _KEPT_ON_HOST in text:
            sys.stderr.buffer.write(text)

    return ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(speak)


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except MissingError as problem:
        sys.stderr.write(f"{problem}\n")
    sys.stderr.flush()
    os._exit(0)
