"""LoRA adapters beside a torch model: what they hold, and what they compute beside a layer.

An adapter is two matrices beside a layer's own, ``rank`` wide. A file says which layers and ranks;
a rank alone is put on the layers that the libraries' own training scripts choose. Fused into the
weights an adapter takes nothing. Modules that peft trained whole (`modules_to_save`) are in its
file, and stand beside those of the model, in its dtype; what it saved of a layer that has an
adapter (`base_layer`) is written over that layer. Sources: peft, tuners/lora/layer.py and
utils/other.py (`ModulesToSaveWrapper`); diffusers,
examples/text_to_image/train_text_to_image_lora.py and
examples/dreambooth/train_dreambooth_lora_flux.py; peft, utils/constants.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from vramplan.codec import Json
from vramplan.engines.torch.diffusers_offload import DENOISERS
from vramplan.engines.torch.module_list import LINEAR, Module, ModuleList
from vramplan.errors import SourceError, UsageError
from vramplan.model import Band, Origin, Settings
from vramplan.quick_dataclass import dataclass, field
from vramplan.setting_values import files_of
from vramplan.sources.safetensors import Tensor, read_safetensors

_RANK = re.compile(r"rank-?([0-9]{1,4})((?::(?:fp32|fp16|bf16|fused))*)", re.IGNORECASE)
_SUFFIX = ".safetensors"
#: a UNet has some forty
_MOST_SHAPES = 512
_FUSED = "fused"
_BYTES: Mapping[str, int] = {"fp32": 4, "fp16": 2, "bf16": 2}
#: layers that training scripts put an adapter on, by the end of their names
_OF_DENOISERS = (
    *("to_k", "to_q", "to_v", "to_out.0"),
    *("add_k_proj", "add_q_proj", "add_v_proj", "to_add_out"),
)
_OF_LANGUAGE = ("q_proj", "v_proj")
#: the two matrices, as files call them
_PAIRS = (("lora_A", "lora_B"), ("lora_down", "lora_up"), ("lora.down", "lora.up"))
_LENGTHS = (".dora_scale", ".lora_magnitude_vector")  # of DoRA: how long each row of the sum is
#: what else an adapter holds: lengths, and the two matrices beside words
_BESIDE = (*_LENGTHS, ".lora_embedding_A", ".lora_embedding_B")
#: of peft's own files: how names begin, and what is in those of tensors that are no whole module's
_OF_PEFT, _OF_LAYERS = "base_model.model.", ("lora_", ".base_layer.", ".token_adapter.")
_THIN, _HEAD, _PEFT_CONFIG = ".lora_", ".lm_head.weight", "adapter_config.json"
#: what a DoRA layer makes anew at each call, in matrices of its weight's size: the product of its
#: two matrices, that scaled, and its sum with the weight (peft, tuners/lora/dora.py)
_DORA_MATRICES = 3
#: of what is live, in hundredths, expected and at most, for each two bytes of an adapter's element:
#: its result, and that scaled, beside the layer's own; in fp32 the input once more
_WORK = (25, 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One adapter. `rank` is None for a file, whose tensors are counted by component.

    `element_bytes` is None where nobody said a dtype: diffusers casts an adapter to that of its
    component, whatever the file's; peft casts one of a language model to fp32
    (`autocast_adapter_dtype`).
    """

    text: str
    rank: int | None
    element_bytes: int | None
    is_fused: bool
    tensors: Mapping[str, tuple[int, ...]]  # component -> elements of each, of a file
    layers: Mapping[str, Mapping[tuple[int, int], int]]  # of a file: inputs, outputs -> its rank
    remade: Mapping[str, int]  # component -> elements of the largest weight that DoRA makes anew
    #: component -> elements of each tensor of a module that is there once more, in its dtype
    copies: Mapping[str, tuple[int, ...]] = field(default_factory=dict, repr=False)
    #: component -> elements of what is made anew of all experts of a layer, where that is most
    experts: Mapping[str, int] = field(default_factory=dict, repr=False)

    def bytes_in(self, component: str, element_bytes: int) -> int:
        """Return the bytes of an element beside a component that is in so many."""
        if self.element_bytes is not None:
            return self.element_bytes
        return element_bytes if _is_of_pipeline(component) else 4


def adapters_of(settings: Settings, lists: Mapping[str, ModuleList]) -> tuple[Adapter, ...]:
    """Return the adapters that ``lora`` names. Raises UsageError for what is none.

    A file's SourceError is passed on.
    """
    return tuple(_adapter(text, lists) for text in files_of(settings.get("lora")))


def _adapter(text: str, lists: Mapping[str, ModuleList]) -> Adapter:
    found = _RANK.fullmatch(text)
    if found:
        words = [word.lower() for word in found[2].split(":") if word]
        dtypes = [word for word in words if word != _FUSED]
        if int(found[1]) < 1 or len(dtypes) > 1:
            raise UsageError(f"lora {text}: not a rank", hint="such as rank16, rank16:bf16:fused")
        return Adapter(
            text=text,
            rank=int(found[1]),
            element_bytes=_BYTES[dtypes[0]] if dtypes else None,
            is_fused=_FUSED in words,
            tensors={},
            layers={},
            remade={},
        )
    name, sign, word = text.rpartition(":")
    is_fused = bool(sign) and word.lower() == _FUSED
    path = Path(name if is_fused else text)
    if path.suffix.lower() != _SUFFIX:
        hint = "write a .safetensors file, or a rank such as rank16; :fused for one that is fused"
        raise UsageError(f"lora {text[:80]!r}: no adapter", hint=hint)
    tensors, copies = _in_file(path)
    stacked = _stacked(path, tensors)
    flat = [one for one in tensors if one.name.partition(_THIN)[0] not in stacked]
    return Adapter(
        text=text,
        rank=None,
        element_bytes=None,
        is_fused=is_fused,
        tensors=_by_component(tensors, lists),
        layers=_layers(flat, lists),
        remade=_remade(tensors, lists),
        copies=_by_component(copies, lists),
        experts=_made_anew(stacked, lists),
    )


def _stacked(path: Path, tensors: Sequence[Tensor]) -> dict[str, int]:
    """Return the elements of each parameter of experts that a file has an adapter for.

    All experts of a layer are one parameter, which peft adapts by `target_parameters`: the rank is
    there once for each of them, and what the config beside the file says is that of one.
    """
    said = _config_beside(path)
    rank = said.get("r")
    if type(rank) is not int or rank < 1 or said.get("rank_pattern"):
        return {}
    return {
        layer: rows // rank * inside * outside
        for layer, (inside, outside, rows) in _sides(tensors).items()
        if rows > rank and rows % rank == 0
    }


def _made_anew(stacked: Mapping[str, int], lists: Mapping[str, ModuleList]) -> Mapping[str, int]:
    """Return what is made anew of a layer's experts, by component, where that is most.

    peft adds the product to the weights, of all parameters that it adapts there at once, whichever
    experts are chosen (tuners/lora/layer.py, `ParamWrapper`).
    """
    layers: dict[str, int] = {}
    for name, elements in stacked.items():
        layer = name.replace(".base_layer", "")
        layers[layer] = layers.get(layer, 0) + elements
    found: dict[str, int] = {}
    for layer, elements in layers.items():
        component = _component_of(layer, lists)
        found[component] = max(found.get(component, 0), elements)
    return found


def _by_component(
    tensors: Sequence[Tensor], lists: Mapping[str, ModuleList]
) -> Mapping[str, tuple[int, ...]]:
    """Return the elements of each tensor, by the component that it belongs to."""
    found: dict[str, list[int]] = {}
    for tensor in tensors:
        found.setdefault(_component_of(tensor.name, lists), []).append(tensor.elements)
    return {name: tuple(sizes) for name, sizes in found.items()}


def _sides(tensors: Sequence[Tensor]) -> dict[str, tuple[int, int, int]]:
    """Return the inputs, the outputs and the rank of each layer whose two matrices are here.

    Of a convolution they are those at each pixel.
    """
    firsts, seconds = dict[str, tuple[int, ...]](), dict[str, tuple[int, ...]]()
    for tensor in tensors:
        for pair in _PAIRS:
            for word, shapes in zip(pair, (firsts, seconds), strict=True):
                layer, mark, _ = tensor.name.partition(f".{word}")
                if mark and len(tensor.shape) > 1:
                    shapes[layer] = tensor.shape
    return {
        layer: (firsts[layer][1], shape[0], firsts[layer][0])
        for layer, shape in seconds.items()
        if layer in firsts
    }


def _layers(
    tensors: Sequence[Tensor], lists: Mapping[str, ModuleList]
) -> dict[str, dict[tuple[int, int], int]]:
    """Return which layers a file has adapters for, by component, and the widest rank of each.

    Raises UsageError for more shapes of layers than any model has.
    """
    found: dict[str, dict[tuple[int, int], int]] = {}
    for layer, (inside, outside, rank) in _sides(tensors).items():
        if min(inside, outside, rank) < 1:  # a file may say so; it computes nothing
            continue
        known = found.setdefault(_component_of(layer, lists), {})
        known[inside, outside] = max(rank, known.get((inside, outside), 0))
        if len(known) > _MOST_SHAPES:
            raise UsageError(f"lora: adapters for more than {_MOST_SHAPES} shapes of layers")
    return found


def _remade(tensors: Sequence[Tensor], lists: Mapping[str, ModuleList]) -> Mapping[str, int]:
    """Return the elements of the largest weight that has a DoRA, by component."""
    lengths = {
        one.name.removesuffix(end) for one in tensors for end in _LENGTHS if one.name.endswith(end)
    }
    sides: dict[str, list[int]] = {}  # layer -> its inputs and its outputs
    for tensor in tensors:
        for first, second in _PAIRS:
            layer, mark, _ = tensor.name.partition(f".{first}")
            if mark and layer in lengths:
                sides.setdefault(layer, []).append(math.prod(tensor.shape[1:]))
            layer, mark, _ = tensor.name.partition(f".{second}")
            if mark and layer in lengths:
                sides.setdefault(layer, []).append(math.prod(tensor.shape[:1]))
    found: dict[str, int] = {}
    for layer, both in sides.items():
        component = _component_of(layer, lists)
        found[component] = max(found.get(component, 0), math.prod(both))
    return found


def _in_file(path: Path) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Return the tensors of a file's adapters, and of the modules that it has whole."""
    try:
        state = path.stat()
    except OSError as problem:
        raise UsageError(f"lora {path}: {problem.strerror or problem}") from None
    return _read(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=16)
def _read(path: Path, _size: int, _changed: int) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    tensors = read_safetensors(path).tensors
    pairs = tuple(
        one for one in tensors if any(word in one.name for pair in _PAIRS for word in pair)
    )
    if not pairs:
        raise UsageError(f"lora {path}: it has no LoRA tensors", hint="such as ….lora_A.weight")
    thin = tuple(one for one in tensors if one in pairs or one.name.endswith(_BESIDE))
    return thin, _whole(path, tensors)


def _whole(path: Path, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the tensors of modules that peft trained whole, and has beside the model's own.

    A module without a weight has its bias there alone (`bias="all"`), which is the model's. Words
    that stay shared with the head (`ensure_weight_tying`) are there once.
    """
    named = {
        one.name: one
        for one in tensors
        if one.name.startswith(_OF_PEFT) and not any(word in one.name for word in _OF_LAYERS)
    }
    owners = {name.rpartition(".")[0] for name in named if name.endswith(".weight")}
    found = [one for name, one in named.items() if name.rpartition(".")[0] in owners]
    heads = [one for one in found if one.name.endswith(_HEAD)]
    is_tied = _config_beside(path).get("ensure_weight_tying") is True
    if heads and len(found) > len(heads) and is_tied:
        return tuple(one for one in found if not one.name.endswith(_HEAD))
    return tuple(found)


def _config_beside(path: Path) -> Mapping[str, Json]:
    """Return what peft's config beside a file says; nothing where a file is alone."""
    from vramplan.sources.saved_model import LocalFiles  # loads much

    try:
        return LocalFiles(path.parent).read_config(_PEFT_CONFIG)
    except (OSError, SourceError):
        return {}


def _component_of(name: str, lists: Mapping[str, ModuleList]) -> str:
    """Return the component that an adapter's tensor belongs to, by its name's beginning."""
    for component in sorted(lists, key=len, reverse=True):
        if name.startswith((f"{component}.", f"lora_{component}_")):
            return component
    kohya = {"lora_unet_": DENOISERS, "lora_te1_": ("text_encoder",), "lora_te_": ("text_encoder",)}
    kohya["lora_te2_"] = ("text_encoder_2",)
    for start, components in kohya.items():
        if name.startswith(start):
            return next((one for one in components if one in lists), "")
    return next((one for one in DENOISERS if one in lists), next(iter(lists), ""))


def added_tensors(
    component: str, modules: ModuleList, adapters: Sequence[Adapter], element_bytes: int
) -> list[int | str]:
    """Return the tensors that adapters add to a component; of those that are fused, none.

    `element_bytes` are the component's own.
    """
    found: list[int | str] = []
    for adapter in adapters:
        if adapter.is_fused:
            continue
        width = adapter.bytes_in(component, element_bytes)
        if adapter.rank is None:
            elements: Iterable[int] = adapter.tensors.get(component, ())
        else:
            elements = _ranked(component, modules, adapter.rank)
        found += (f"{count * width}B" for count in elements)
        found += (f"{count * element_bytes}B" for count in adapter.copies.get(component, ()))
    return found


def adapted_layers(
    component: str, modules: ModuleList, adapters: Sequence[Adapter], element_bytes: int
) -> dict[tuple[int, int], tuple[tuple[int, int], ...]]:
    """Return the layers of a component that have adapters, by their inputs and outputs.

    Of each shape the ranks, and the bytes of an element, of one adapter after the other.
    """
    found: dict[tuple[int, int], tuple[tuple[int, int], ...]] = {}
    for adapter in adapters:
        if adapter.is_fused:
            continue
        width = adapter.bytes_in(component, element_bytes)
        layers: Mapping[tuple[int, int], int]
        if adapter.rank is None:
            layers = adapter.layers.get(component, {})
        else:
            layers = {
                (one.columns, one.rows): adapter.rank for one in _beside_rank(component, modules)
            }
        for shape, rank in layers.items():
            found[shape] = (*found.get(shape, ()), (rank, width))
    return found


def _is_of_pipeline(component: str) -> bool:
    """Return whether a component is one that diffusers loads adapters into."""
    return component in DENOISERS or component.startswith("text_encoder")


def _ranked(component: str, modules: ModuleList, rank: int) -> Iterator[int]:
    """Yield the elements of the two matrices beside each layer that has them by rank."""
    for one in _beside_rank(component, modules):
        yield rank * one.columns
        yield one.rows * rank


def _beside_rank(component: str, modules: ModuleList) -> Iterator[Module]:
    """Yield the layers that have an adapter by rank."""
    ends: tuple[str, ...] = _OF_LANGUAGE
    if component in DENOISERS:
        ends = _OF_DENOISERS
    elif component.startswith("text_encoder") or not modules.is_of_transformers:
        return
    for one in modules.modules:
        if one.kind == LINEAR and one.name.endswith(ends):
            yield one


def is_adaptable(lists: Mapping[str, ModuleList]) -> bool:
    """Return whether a rank alone has layers to go to."""
    return any(next(_ranked(name, modules, 1), None) for name, modules in lists.items())


def adapter_band(
    component: str,
    modules: ModuleList,
    adapters: Sequence[Adapter],
    element_bytes: int,
    working_bytes: int,
) -> Band:
    """Return what adapters compute beside a layer's own result while a component runs.

    A DoRA's weights are made anew one layer after the other: the largest of them counts. So are
    those of a layer's experts, in their own dtype.
    """
    widths = [
        one.bytes_in(component, element_bytes)
        for one in adapters
        if added_tensors(component, modules, (one,), element_bytes)
    ]
    expected, most = (working_bytes * share * max(widths, default=0) // 200 for share in _WORK)
    remade = max(
        (_remade_bytes(component, one, element_bytes) for one in adapters if not one.is_fused),
        default=0,
    )
    remade += sum(
        one.experts.get(component, 0) * element_bytes for one in adapters if not one.is_fused
    )
    return Band(low_bytes=0, expected_bytes=expected + remade, high_bytes=most + remade)


def _remade_bytes(component: str, adapter: Adapter, element_bytes: int) -> int:
    """Return what a DoRA makes anew of its largest weight, in the adapter's dtype.

    The weight itself is copied to that dtype where it has another.
    """
    width = adapter.bytes_in(component, element_bytes)
    matrices = _DORA_MATRICES + (width != element_bytes)
    return matrices * adapter.remade.get(component, 0) * width


def how_sure(adapters: Sequence[Adapter]) -> tuple[Origin, str]:
    """Return how sure the bytes of adapters are, and why."""
    if all(one.rank is None for one in adapters):
        return Origin.EXACT, "counted from the header of the adapter's file"
    return Origin.ASSUMED, "an adapter of this rank on the layers that training scripts choose"
