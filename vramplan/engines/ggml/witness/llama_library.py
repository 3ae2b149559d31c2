"""llama.cpp's own functions to load a model and make a context, called in its library.

The parameters' layouts are found by their defaults: of those known, the one whose defaults are
where they should be. A library with another layout is refused. Source: ggml-org/llama.cpp,
include/llama.h (llama_model_params, llama_context_params) and common/fit.h.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Sequence
from ctypes import Structure, c_bool, c_char_p, c_float, c_int, c_size_t, c_uint32, c_void_p
from pathlib import Path

from vramplan.errors import MissingError
from vramplan.extras import install_command

_FIT = (
    "_Z17common_fit_paramsPKcP18llama_model_paramsP20llama_context_paramsPf"
    "P32llama_model_tensor_buft_overridePmj"
)
#: what follows in the name since the fit takes a second model, and before
_FIT_ENDS = ("PK22common_fit_extra_model14ggml_log_level", "14ggml_log_level")
_ERROR = 4  # enum ggml_log_level

_MODEL = (
    ("devices", c_void_p),
    ("buffer_overrides", c_void_p),
    ("gpu_layers", c_int),
    ("split_mode", c_int),
    ("load_mode", c_int),
    ("lazy_mode", c_int),
    ("main_gpu", c_int),
    ("tensor_split", c_void_p),
    ("progress", c_void_p * 2),
    ("overrides", c_void_p),
    ("vocab_only", c_bool),
    ("check_tensors", c_bool),
    ("use_extra_buffers", c_bool),
    ("no_host", c_bool),
    ("no_alloc", c_bool),
    ("load_mtp", c_bool),
)
_CONTEXT = (
    ("context", c_uint32),
    ("batch", c_uint32),
    ("ubatch", c_uint32),
    ("sequences", c_uint32),
    ("snapshots", c_uint32),
    ("outputs", c_uint32),
    ("outputs_per_sequence", c_uint32),
    ("threads", c_int * 2),
    ("kind", c_int),
    ("rope_scaling", c_int),
    ("pooling", c_int),
    ("attention", c_int),
    ("flash", c_int),
    ("rope", c_float * 6),
    ("yarn_context", c_uint32),
    ("defragment", c_float),
    ("callback", c_void_p * 2),
    ("type_k", c_int),
    ("type_v", c_int),
    ("abort", c_void_p * 2),
    ("more", c_void_p),
    ("embeddings", c_bool),
    ("offload_cache", c_bool),
    ("no_timing", c_bool),
    ("offload_ops", c_bool),
    ("whole_window", c_bool),
    ("unified", c_bool),
    ("samplers", c_void_p * 2),
    ("other", c_void_p),
)


#: what is said of a build whose inside is not known, first
NOT_KNOWN = "this build of the engine"


def builds_known() -> str:
    """Return which builds of the engine are known from the inside, and what installs one."""
    return f"vramplan knows llama.cpp b10566 to b11549 from the inside: {install_command('engine')}"


class _Model11549(Structure):
    _fields_ = _MODEL


class _Model10566(Structure):
    _fields_ = tuple(field for field in _MODEL if field[0] != "lazy_mode")


class _Context11549(Structure):
    _fields_ = _CONTEXT


class _Context10566(Structure):
    _fields_ = tuple(field for field in _CONTEXT if field[0] != "more")


def open_library(folder: Path) -> ctypes.CDLL:
    """Return the engine's library in a Python package's folder. Raises MissingError."""
    for path in sorted(folder.glob("*.so")):
        library = ctypes.CDLL(str(path))
        if hasattr(library, "llama_model_load_from_file"):
            return library
    raise MissingError(f"{folder}: no library of llama.cpp in it", hint=builds_known())


def model_parameters(library: ctypes.CDLL) -> Structure:
    """Return the parameters to load a model with, at their defaults. Raises MissingError."""
    for layout in (_Model11549, _Model10566):
        library.llama_model_default_params.restype = layout
        found = library.llama_model_default_params()
        flags = (found.vocab_only, found.check_tensors, found.no_host, found.no_alloc)
        if found.gpu_layers == -1 and found.use_extra_buffers and not any(flags):
            return found  # type: ignore[no-any-return]  # a foreign function
    raise MissingError(f"{NOT_KNOWN} loads models another way", hint=builds_known())


def context_parameters(library: ctypes.CDLL) -> Structure:
    """Return the parameters to make a context with, at their defaults. Raises MissingError."""
    for layout in (_Context11549, _Context10566):
        library.llama_context_default_params.restype = layout
        found = library.llama_context_default_params()
        numbers = (found.context, found.batch, found.ubatch, found.sequences)
        flags = (found.embeddings, found.offload_cache, found.offload_ops, found.unified)
        types = (found.type_k, found.type_v, found.outputs_per_sequence)
        if (numbers, types) == ((512, 2048, 512, 1), (1, 1, 1)) and flags == (0, 1, 1, 0):
            return found  # type: ignore[no-any-return]  # a foreign function
    raise MissingError(f"{NOT_KNOWN} makes contexts another way", hint=builds_known())


def fit(
    library: ctypes.CDLL,
    path: Path,
    model: Structure,
    context: Structure,
    margins_bytes: Sequence[int],
) -> bool:
    """Let the engine choose how many layers go to which card, as its server does.

    `margins_bytes`: what is to be left free on each. Return whether it found a way.

    What it chooses is written into `model` and, where it is 0, the context. Raises MissingError for
    a library without it.
    """
    for end in _FIT_ENDS:
        if hasattr(library, _FIT + end):
            break
    else:
        raise MissingError(f"{NOT_KNOWN} has no fit", hint=builds_known())
    devices, overrides = library.llama_max_devices(), library.llama_max_tensor_buft_overrides()
    arguments: list[object] = [
        c_char_p(str(path).encode()),
        ctypes.byref(model),
        ctypes.byref(context),
        (c_float * devices)(),
        (c_void_p * (2 * overrides))(),
        (c_size_t * devices)(*margins_bytes),
        c_uint32(_LEAST_CONTEXT),
    ]
    _KEPT.extend(arguments[3:6])
    if end == _FIT_ENDS[0]:
        arguments.append(None)
    return bool(getattr(library, _FIT + end)(*arguments, c_int(_ERROR)) == 0)


#: common/common.h (fit_params_min_ctx): a context that nobody gave is not made smaller
_LEAST_CONTEXT = 4096


def expert_patterns(layers: Iterable[int]) -> Iterator[tuple[str, int | None]]:
    """Yield what keeps the experts of `layers` in host memory, as ``--n-cpu-moe`` does.

    Source: llama.cpp, common/common.h (llm_add_n_cpu_ffn_overrides).
    """
    for layer in layers:
        yield rf"blk\.{layer}\.ffn_(up|down|gate|gate_up)_(ch|)exps", None


def override_tensors(
    library: ctypes.CDLL, model: Structure, patterns: Iterable[tuple[str, int | None]]
) -> None:
    """Put the tensors that `patterns` match on a card, or in host memory, as ``-ot`` does.

    Raises MissingError for a card that there is not.
    """
    library.ggml_backend_cpu_buffer_type.restype = c_void_p
    library.ggml_backend_dev_by_name.restype = c_void_p
    library.ggml_backend_dev_buffer_type.restype = c_void_p
    library.ggml_backend_dev_buffer_type.argtypes = [c_void_p]
    pairs: list[int] = []
    for pattern, card in patterns:
        text = ctypes.create_string_buffer(pattern.encode())
        _KEPT.append(text)
        place = library.ggml_backend_cpu_buffer_type()
        if card is not None:
            device = library.ggml_backend_dev_by_name(f"CUDA{card}".encode())
            if not device:
                raise MissingError(f"the engine has no CUDA{card}")
            place = library.ggml_backend_dev_buffer_type(device)
        pairs += (ctypes.addressof(text), place)
    overrides = (c_void_p * (len(pairs) + 2))(*pairs)  # two empty ones end it
    model.buffer_overrides = ctypes.addressof(overrides)
    _KEPT.append(overrides)


def share_out(
    library: ctypes.CDLL, model: Structure, mode: str, main_gpu: int, shares: Sequence[float]
) -> None:
    """Say how the layers are shared out among cards; without `shares` by what is free on each."""
    model.split_mode, model.main_gpu = SPLIT_MODES[mode], main_gpu
    if shares:
        told = (c_float * library.llama_max_devices())(*shares)
        model.tensor_split = ctypes.addressof(told)
        _KEPT.append(told)


#: enum llama_split_mode
SPLIT_MODES = {"none": 0, "layer": 1, "row": 2, "tensor": 3}

#: buffers that parameters point into after a fit
_KEPT: list[object] = []


def load(
    library: ctypes.CDLL, path: Path, model: Structure, context: Structure
) -> tuple[int, int] | None:
    """Load a model and make a context, which prints their buffers; return both, if they came."""
    library.llama_model_load_from_file.restype = c_void_p
    library.llama_model_load_from_file.argtypes = [c_char_p, type(model)]
    library.llama_init_from_model.restype = c_void_p
    library.llama_init_from_model.argtypes = [c_void_p, type(context)]
    loaded = library.llama_model_load_from_file(str(path).encode(), model)
    made = library.llama_init_from_model(loaded, context) if loaded else None
    return (loaded, made) if loaded and made else None


#: reserves a context's graph anew where something has changed it; llama_decode begins with it
_RESERVE = "_ZN13llama_context13sched_reserveEv"


def add_adapters(library: ctypes.CDLL, model: int, context: int, paths: Sequence[str]) -> None:
    """Put LoRA adapters into a context's graph and reserve it, which prints its buffers again.

    Raises MissingError for a build that has no such functions, or an adapter that it does not take.
    """
    names = ("llama_adapter_lora_init", "llama_set_adapters_lora", _RESERVE)
    if not all(hasattr(library, name) for name in names):
        raise MissingError(f"{NOT_KNOWN} takes adapters another way", hint=builds_known())
    begin, choose, reserve = (getattr(library, name) for name in names)
    begin.restype, begin.argtypes = c_void_p, [c_void_p, c_char_p]
    choose.restype, choose.argtypes = c_int, [c_void_p, c_void_p, c_size_t, c_void_p]
    reserve.restype, reserve.argtypes = None, [c_void_p]
    found = [begin(model, path.encode()) for path in paths]
    for path, adapter in zip(paths, found, strict=True):
        if not adapter:
            raise MissingError(f"{path}: the engine does not take this adapter")
    count = len(found)
    scales = (c_float * count)(*[1.0] * count)  # one of 0 is not in the graph
    if choose(context, (c_void_p * count)(*found), count, scales):
        raise MissingError("the engine does not take these adapters together")
    reserve(context)
