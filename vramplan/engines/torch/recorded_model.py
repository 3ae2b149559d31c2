"""A saved model without a tape, recorded by its own code where its libraries are installed.

What is recorded are the allocations of one run at the settings that are asked for, without data and
without a GPU, in a process with bounds (`recording_process`). The recording is a tape whose sizes
are constants, and is replayed as any other.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from functools import cache, lru_cache

from vramplan.engines.torch import kept_recordings
from vramplan.engines.torch.another_cache import is_static
from vramplan.engines.torch.attention_kernel import attention_kernel
from vramplan.engines.torch.counted_model import SAVED_DTYPES
from vramplan.engines.torch.diffusers_offload import CHAIN
from vramplan.engines.torch.libraries import LIBRARIES
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.errors import RecordingError, TapeError
from vramplan.hearing import listener
from vramplan.model import Settings
from vramplan.quick_dataclass import dataclass, replace
from vramplan.recording_switch import SWITCH, is_off
from vramplan.searching import is_search, leave_out
from vramplan.sources.saved_model import Part, SavedModel

#: raise it when what is recorded changes
_VERSION = 3
_NEEDED = (*LIBRARIES, "resource")  # the last bounds a process, and is not there on Windows
_LIBRARIES_OF_PARTS = ("diffusers.", "transformers.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What became of a recording: the pipeline with its tape, or none, and what to say of it."""

    pipeline: TorchPipeline | None
    reason: str = ""


#: by key: what failed fails again
_failed: dict[str, str] = {}
_MOST_FAILED = 256


def is_recordable(model: SavedModel) -> bool:
    """Return whether a saved model is one whose classes can be asked: not a file without configs.

    Quantised weights are computed with in ways that their libraries choose.
    """
    return all(
        part.class_path.startswith(_LIBRARIES_OF_PARTS)
        and not part.config.get("quantization_config")
        and all(_is_plain(tensor.dtype) for tensor in part.tensors)
        for part in model.parts
    )


def _is_plain(dtype: str) -> bool:
    return dtype in SAVED_DTYPES or dtype in ("I64", "I32", "BOOL")


def missing_library() -> str | None:
    """Return what recording lacks here, or None: a library, or that it is switched off."""
    if is_off():
        return f"{SWITCH} is off"
    return _first_missing(_NEEDED)


@lru_cache(
    maxsize=4
)  # asked for every model and setting, and each answer looks through every folder of the path
def _first_missing(needed: tuple[str, ...]) -> str | None:
    for name in needed:
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed"
    return None


def record_saved(pipeline: TorchPipeline, settings: Settings, compute_capability: str) -> Attempt:
    """Return a saved model's pipeline with a tape recorded at these settings, or why not."""
    model = pipeline.saved
    if model is None or not is_recordable(model):
        return Attempt(pipeline=None)
    if (missing := missing_library()) is not None:
        return Attempt(pipeline=None, reason=f"it is not recorded here: {missing}")
    if settings.get("offload") in ("model", "group") and (odd := _unchained(model)):
        reason = f"offload of {odd} is not modelled, so it is not recorded"
        return Attempt(pipeline=None, reason=reason)
    request = _request(model, settings, compute_capability)
    key = _key(request)
    if key in _failed:
        return Attempt(pipeline=None, reason=_failed[key])
    is_kept = kept_recordings.find(key)
    if not is_kept and is_search():
        leave_out(pipeline.name)
        reason = "it is not recorded in a search: vramplan check records it"
        return Attempt(pipeline=None, reason=reason)
    if not is_kept:
        try:
            kept_recordings.keep(key, _record(request, pipeline.name))
        except (RecordingError, TapeError) as problem:
            _failed[key] = f"it could not be recorded here: {problem}"
            while len(_failed) > _MOST_FAILED:
                del _failed[next(iter(_failed))]  # the oldest
            return Attempt(pipeline=None, reason=f"it could not be recorded here: {problem}")
    return Attempt(
        pipeline=replace(
            pipeline,
            counted=None,
            tape=key,
            folders=(kept_recordings.folder(),),
            is_recorded_here=True,
            cache_layers=(),  # it has the cache that was asked for
        ),
        reason=_closing_window(model, settings),
    )


def _record(request: Mapping[str, object], name: str) -> str:
    """Return the text of a new recording, read once to see that it is a tape."""
    from vramplan.engines.torch.recording_process import CPU_SECONDS, MEMORY_BYTES, run_child
    from vramplan.engines.torch.tape.format import parse_tape

    bounds = {"seconds": CPU_SECONDS, "memory_bytes": MEMORY_BYTES}
    asked = json.dumps({**request, **bounds}).encode()
    hear = listener()
    text = run_child(asked, lambda step: hear(f"recording {name}: {step}"))
    parse_tape(text, "its recording")
    return text


def _closing_window(model: SavedModel, settings: Settings) -> str:
    """Return a note where layers that see a window of tokens stop growing behind the recording."""
    prompt, new = settings.get("prompt_tokens"), settings.get("new_tokens")
    inner = model.config.get("text_config")
    window = (inner if isinstance(inner, Mapping) else model.config).get("sliding_window")
    if not (isinstance(prompt, int) and isinstance(new, int) and isinstance(window, int)):
        return ""
    if not prompt < window < prompt + new:
        return ""
    return (
        f"layers with a window of {window} tokens may stop growing while it generates; they are "
        "taken to grow on, so the need may be less"
    )


def _unchained(model: SavedModel) -> str:
    """Return the first component of which the order of offload is not known."""
    if model.kind != "pipeline":
        return ""
    return next((part.name for part in model.parts if part.name not in CHAIN), "")


def _request(model: SavedModel, settings: Settings, compute_capability: str) -> dict[str, object]:
    """Return what is asked of the recording process, but for its bounds."""
    dtype = str(settings["dtype"])
    image = settings.get("image")
    return {
        "name": "recording",
        "kind": model.kind,
        "class_path": f"{model.runtime}.{model.class_name}",
        "parts": [_part(part) for part in model.parts],
        "index": dict(model.config) if model.kind == "pipeline" else {},
        "schedulers": {name: dict(config) for name, config in model.schedulers.items()},
        "dtype": dtype,
        "kernel": attention_kernel(compute_capability, "sdpa", dtype),
        "batch": settings.get("batch", 1),
        "image": list(image) if isinstance(image, tuple) else None,
        "frames": settings.get("frames"),
        "prompt_tokens": settings.get("prompt_tokens", 0),
        **_cache_of(settings),
        # an entry of the catalogue has more settings than a saved model
        **{key: settings[key] for key in ("guidance", "mode") if key in settings},
    }


def _cache_of(settings: Settings) -> dict[str, object]:
    """Return how long the cache is, where it is a static one."""
    if not is_static(settings):
        return {}
    from vramplan.engines.torch.held_cache import static_tokens

    return {"static_cache": static_tokens(settings)}


def _part(part: Part) -> dict[str, object]:
    floats = (tensor.elements for tensor in part.tensors if tensor.dtype in SAVED_DTYPES)
    return {
        "name": part.name,
        "class_path": part.class_path,
        "config": dict(part.config),
        "elements": sum(floats),
        **({"dtype": part.dtype} if part.dtype else {}),
    }


def _key(request: Mapping[str, object]) -> str:
    """Return the name of a recording: all that it depends on, with the libraries' versions."""
    told = json.dumps([_VERSION, _versions(), request], sort_keys=True)
    return f"recorded-{hashlib.sha256(told.encode()).hexdigest()[:32]}"


@cache
def _versions() -> dict[str, str]:
    """Return the versions of what records, read once: each is a file of its own."""
    from importlib.metadata import version  # long to load, and asked only by what is recorded

    return {name: version(name) for name in LIBRARIES}
