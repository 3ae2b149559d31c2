"""Components of a saved model on `meta`, built from configs that may come from a stranger.

Only classes of diffusers and transformers are taken, and what a config builds is bounded by what
the headers of its files say: a config that builds another model than its files hold is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode

from vramplan.engines.torch.record.classes import find_class
from vramplan.engines.torch.record.layouts import META
from vramplan.engines.torch.record.session import DTYPES
from vramplan.errors import RecordingError
from vramplan.quick_dataclass import dataclass

Value = Any

#: modules and tensors that a component may have; FLUX has some thousands
_MOST_MODULES = 100_000
#: a constructor may make this many times what its files hold, and so much more: parameters that
#: are tied afterwards are made before, and some are made more than once
_TIMES, _SLACK_ELEMENTS = 8, 1 << 22
#: no number of a config is beyond this: lists of so many layers would be made before a module is
_LARGEST = 1 << 28
#: a built model is the saved one where it has its elements within so many in a thousand
_WITHIN = 10
#: elements of the largest model that the catalogue may describe
_LARGEST_MODEL = 1 << 42
#: elements of tables (positions) that small models' files may have besides
_TABLES = 1 << 12
#: keys of configs that would run code, or fetch something
_REFUSED = frozenset({"auto_map", "custom_pipelines", "quantization_config"})
_DEEPEST = 12
#: what `from_pretrained` is told; a part of a model would be built by what its own config says
_CHOICES = frozenset(
    {"dtype", "torch_dtype", "use_cache", "output_attentions", "output_hidden_states"}
    | {f"{start}{kind}_implementation" for start in ("", "_") for kind in ("attn", "experts")}
    | {"_attn_implementation_autoset", "_attn_implementation_internal"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedPart:
    """What is known of a component: its class, its config, the elements that its files have.

    The catalogue's own descriptions have no files: `elements` is None. They may say the parameters
    of the class, to the unit, and a dtype that it has whatever is asked for.
    """

    name: str
    class_path: str
    config: Mapping[str, Value]
    elements: int | None
    parameters: int | None = None
    dtype: str | None = None  # its own; None for the one that is asked for


def build_part(part: SavedPart, dtype: torch.dtype) -> torch.nn.Module:
    """Return the component on `meta` in its own dtype, else in `dtype`, for inference.

    Raises RecordingError where its config is refused, fails, or builds another model than its files
    hold; CatalogError for a class that is none of the libraries'.
    """
    dtype = DTYPES[part.dtype] if part.dtype else dtype
    refused = _REFUSED & _keys(part.config, 0)
    if refused:
        raise RecordingError(f"{part.name}: a config with {', '.join(sorted(refused))}")
    _check_numbers(part.name, part.config, 0)
    cls = find_class(part.class_path)
    if not issubclass(cls, torch.nn.Module):
        raise RecordingError(f"{part.name}: {part.class_path} is no module")
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with META, _NumbersStay(), _bounded(part):
            module = _make(cls, part)
    except RecordingError:
        raise
    except Exception as problem:  # noqa: BLE001  # a constructor fails in any way at a stranger's numbers
        raise RecordingError(f"{part.name}: {said(problem)}") from None
    finally:
        torch.set_default_dtype(before)
    module = module.eval().requires_grad_(False)
    load_as(module, dtype, is_of_diffusers=part.class_path.startswith("diffusers."))
    _compare(part, module)
    return module


def load_as(module: torch.nn.Module, dtype: torch.dtype, *, is_of_diffusers: bool) -> None:
    """Give every tensor the type that `from_pretrained` loads it in, when `dtype` is asked for.

    diffusers casts all that is saved, but for what a class keeps in fp32; transformers leaves what
    its class made in another type, keeps some in fp32 in fp16, and some in bf16 too. Sources:
    diffusers, models/model_loading_utils.py, load_model_dict_into_meta; transformers,
    modeling_utils.py, _get_dtype_plan, and core_model_loading.py.
    """
    kept = set(getattr(module, "_keep_in_fp32_modules", None) or ())
    if not is_of_diffusers:
        kept = kept if dtype == torch.float16 else set()
        kept |= set(getattr(module, "_keep_in_fp32_modules_strict", None) or ())
    for name, tensor in module.state_dict(keep_vars=True).items():
        if not tensor.is_floating_point():
            continue
        wanted = dtype if is_of_diffusers else tensor.dtype
        if dtype != torch.float32 and any(f".{key}." in f".{name}." for key in kept):
            wanted = torch.float32
        if tensor.dtype != wanted:
            tensor.data = tensor.data.to(wanted)


def _keys(value: Value, depth: int) -> set[str]:
    """Return the keys of a config and of the configs in it."""
    if depth > _DEEPEST or not isinstance(value, Mapping):
        return set()
    found = {key for key, inner in value.items() if inner}
    return found.union(*(_keys(inner, depth + 1) for inner in value.values()))


def _without_choices(value: Value) -> Value:
    """Return a config without what whoever loads the model decides: its type, its kernels."""
    if isinstance(value, Mapping):
        return {k: _without_choices(v) for k, v in value.items() if k not in _CHOICES}
    return value


def _check_numbers(name: str, value: Value, depth: int) -> None:
    """Raise RecordingError for a number, or a nesting, that no model's config has."""
    if depth > _DEEPEST:
        raise RecordingError(f"{name}: its config is nested too deeply")
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for inner in value:
            _check_numbers(name, inner, depth + 1)
    elif isinstance(value, int) and abs(value) > _LARGEST:
        raise RecordingError(f"{name}: its config has a number beyond {_LARGEST:,}")


def _make(cls: Value, part: SavedPart) -> torch.nn.Module:
    # diffusers has a safety checker that is a model of transformers' kind
    if part.class_path.startswith("transformers.") or hasattr(cls, "config_class"):
        config = cls.config_class.from_dict(_without_choices(part.config))
        module: torch.nn.Module = cls(config)
        tie = getattr(module, "tie_weights", None)
        if tie is not None:
            tie()
        return module
    if not hasattr(cls, "from_config"):
        raise RecordingError(f"{part.name}: {part.class_path} is not built from a config")
    built: torch.nn.Module = cls.from_config(dict(part.config))
    return built


class _NumbersStay(TorchFunctionMode):
    """Lets a whole number that a constructor makes a tensor keep its value: code reads it.

    Codecs have their kernels' sizes as buffers that no file has, and pad by them.
    """

    def __torch_function__(
        self, func: Value, types: Value, args: Sequence[Value] = (), kwargs: Value = None
    ) -> Value:
        kwargs = dict(kwargs or {})
        if func is torch.tensor and args and isinstance(args[0], int):
            dtype = kwargs.get("dtype")
            if dtype is None or not dtype.is_floating_point:
                kwargs.setdefault("device", "cpu")
        return func(*args, **kwargs)


@contextmanager
def _bounded(part: SavedPart) -> Iterator[None]:
    """Stop a constructor that makes far more than the files of its component hold."""
    counts = {"modules": 0, "elements": 0}
    seen: dict[int, Value] = {}  # kept, so that no identity is used again
    most = _TIMES * (_LARGEST_MODEL if part.elements is None else part.elements) + _SLACK_ELEMENTS

    def count_tensor(_: Value, __: str, tensor: Value) -> None:
        if tensor is None or id(tensor) in seen:  # one that is tied is registered once more
            return
        seen[id(tensor)] = tensor
        counts["elements"] += max(1, tensor.numel())
        if counts["elements"] > most:
            raise RecordingError(f"{part.name}: its config builds far more than its files hold")

    def count_module(_: Value, __: str, ___: Value) -> None:
        counts["modules"] += 1
        if counts["modules"] > _MOST_MODULES:
            raise RecordingError(
                f"{part.name}: its config builds more than {_MOST_MODULES} modules"
            )

    hooks: Sequence[Value] = [
        register_module_parameter_registration_hook(count_tensor),
        register_module_module_registration_hook(count_module),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _compare(part: SavedPart, module: torch.nn.Module) -> None:
    """Raise RecordingError where a module has other elements than its files.

    Files may have tied tensors once or twice, and tables that the class computes.
    """
    built = sum(parameter.numel() for parameter in module.parameters())
    twice = sum(tensor.numel() for _, tensor in module.named_parameters(remove_duplicate=False))
    if part.parameters is not None and part.parameters != built:
        raise RecordingError(
            f"{part.name}: {part.class_path} by its config has {built:,} parameters, and "
            f"{part.parameters:,} are said"
        )
    if part.elements is None:
        return
    low, high = built * (1000 - _WITHIN) // 1000, twice * (1000 + _WITHIN) // 1000
    if not low <= part.elements <= high + _TABLES:
        raise RecordingError(
            f"{part.name}: {part.class_path} by its config has {built:,} parameters, and its files "
            f"have {part.elements:,}"
        )


def said(problem: BaseException) -> str:
    """Return an error of a library in a line."""
    words = " ".join(str(problem).split())[:200]
    return f"{type(problem).__name__}: {words}" if words else type(problem).__name__
