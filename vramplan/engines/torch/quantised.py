"""Weights in 8 and 4 bits: what each way of quantising holds of a layer, and what it unpacks.

A layer's matrix is replaced by several tensors: packed numbers, scales, zero points, tables. What
is there was read off the libraries' own tensors (bitsandbytes 0.50.2, torchao 0.18.0,
optimum-quanto 0.2.7; a test has the figures); what a layer unpacks while it runs is a band, for
whether a run is at its peak just then is not recorded.

Norms, embeddings, convolutions and heads stay as they are, and so does what a class keeps in fp32.
Sources: transformers, integrations/bitsandbytes.py; diffusers, quantizers/ and
hooks/layerwise_casting.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from vramplan.engines.torch.by_identity import ById
from vramplan.engines.torch.diffusers_offload import DENOISERS
from vramplan.engines.torch.module_list import LINEAR, OTHER, Module, ModuleList
from vramplan.errors import UsageError
from vramplan.model import Band, Origin, Settings
from vramplan.quick_dataclass import dataclass
from vramplan.setting_values import NONE, quantization_of
from vramplan.sources.block_sizes import BLOCKS

#: a GGUF file holds the part that denoises, and diffusers' own casting is switched on for it
_GGUF, _LAYERWISE = "gguf-", "fp8-layerwise"
#: weights a scale of bitsandbytes is for, and scales that one of theirs is for
_BNB_BLOCK, _BNB_NESTED_BLOCK = 64, 256
_FP32, _CODE = 4, 256 * 4
#: widths that torchao's int4 packs are multiples of these
_INT4_GROUP = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unpacked:
    """What runs beside a layer's own result, in hundredths: expected and at most.

    `matrix` of the largest layer in the dtype that is computed in, `work` of what is live.
    """

    matrix: tuple[int, int]
    work: tuple[int, int] = (0, 0)


#: bitsandbytes, autograd/_functions.py: MatMul4Bit unpacks the whole matrix; MatMul8bitLt has the
#: input in int8 (half of it) and a result in int32 (twice the one in half precision).
#: torchao, workflows/int8: the matrix is cast, the product scaled afterwards. optimum-quanto,
#: library/qbytes_mm.py: cast, then scaled; workflows/float8: cast to fp32, scaled there, and cast
#: (findings/float8-weights-are-unpacked-in-ten-bytes.sh). diffusers, hooks/layerwise_casting.py:
#: both copies while one is made
_UNPACKED: Mapping[str, _Unpacked] = {
    "bnb-4bit": _Unpacked(matrix=(100, 100)),
    "bnb-4bit-dq": _Unpacked(matrix=(100, 100)),
    "bnb-8bit": _Unpacked(matrix=(0, 0), work=(50, 200)),
    "torchao-int8": _Unpacked(matrix=(100, 100), work=(0, 100)),
    "torchao-fp8": _Unpacked(matrix=(500, 500)),  # of fp32's own matrix 200
    "torchao-int4": _Unpacked(matrix=(0, 100)),
    "quanto-int8": _Unpacked(matrix=(100, 200)),
    "quanto-fp8": _Unpacked(matrix=(100, 200)),
    "quanto-int4": _Unpacked(matrix=(100, 300)),
    _LAYERWISE: _Unpacked(matrix=(50, 100)),
}

#: what diffusers unpacks a weight of a GGUF file in, hundredths of a byte, all steps that stand
#: beside one another, in bf16; fp16 takes as much or less, fp32 no less than _GGUF_FP32. Counted
#: by findings/diffusers-unpacks-gguf-in-four-to-twelve-bytes.sh (diffusers 0.42.1, gguf/utils.py)
_GGUF_UNPACKED: Mapping[str, int] = {
    "q8_0": 400, "q4_0": 400, "q4_1": 500, "q5_0": 1000, "q5_1": 1000,
    "q2_k": 525, "q3_k": 532, "q4_k": 519, "q5_k": 719, "q6_k": 513,
}  # fmt: skip
_GGUF_FP32 = 601


def schemes_at(
    settings: Settings, components: Sequence[str], lists: Mapping[str, ModuleList]
) -> dict[str, str]:
    """Return how each component that is quantised is; a word alone is for all that it is for.

    Raises UsageError for a component that is not there, and for one that cannot be so.
    """
    text = str(settings.get("quantization", NONE))
    found: dict[str, str] = {}
    for component, scheme in quantization_of(text):
        if component is None:
            found |= dict.fromkeys(_all_of(scheme, components, lists), scheme)
            continue
        if component not in components:
            hint = "it has: " + ", ".join(components)
            raise UsageError(f"quantization {text}: there is no {component!r}", hint=hint)
        modules = lists.get(component)
        if modules is not None and modules.is_of_transformers and _is_of_diffusers(scheme):
            raise UsageError(
                f"quantization {text}: {component} is of transformers, which has no {scheme}",
                hint=f"diffusers has it, for {', '.join(DENOISERS[:3])}",
            )
        found[component] = scheme
    return {name: scheme for name, scheme in found.items() if name in lists}


def _all_of(
    scheme: str, components: Sequence[str], lists: Mapping[str, ModuleList]
) -> Iterable[str]:
    if not _is_of_diffusers(scheme):
        return components
    denoisers = [name for name in components if name in DENOISERS]
    alone = [name for name in components if name in lists and not lists[name].is_of_transformers]
    return denoisers or (alone if len(components) == 1 else ())


def _is_of_diffusers(scheme: str) -> bool:
    return scheme == _LAYERWISE or scheme.startswith(_GGUF)


def quantise(module: Module, scheme: str, element_bytes: int) -> tuple[int | str, ...]:
    """Return a module's tensors as a way of quantising holds them; what it leaves, as they are."""
    if scheme == _LAYERWISE:
        if module.kind == OTHER or module.is_uncast:
            return module.tensors
        return tuple(f"{one}B" if isinstance(one, int) else one for one in module.tensors)
    if module.kind != LINEAR or module.is_kept:
        return module.tensors
    packed = _packed(scheme, module.rows, module.columns, element_bytes)
    if packed is None:
        return module.tensors
    return (*(f"{size}B" for size in packed), *module.tensors[1:])


def _packed(scheme: str, rows: int, columns: int, element_bytes: int) -> Sequence[int] | None:
    """Return the bytes of the tensors that a matrix becomes; None where it stays as it is."""
    count = rows * columns
    scales = -(-count // _BNB_BLOCK)
    match scheme:
        case "bnb-4bit":
            return (-(-count // 2), scales * _FP32, 16 * _FP32)
        case "bnb-4bit-dq":
            nested = -(-scales // _BNB_NESTED_BLOCK) * _FP32
            return (-(-count // 2), scales, 16 * _FP32, _FP32, nested, _CODE)
        case "bnb-8bit":
            return (count, rows * _FP32)
        case "torchao-int8":
            return (count, rows * _FP32, rows)
        case "torchao-fp8":
            return (count, rows * _FP32)
        case "torchao-int4":
            if columns % _INT4_GROUP:
                return None
            groups = count // _INT4_GROUP
            return (count // 2, groups * element_bytes, groups * element_bytes)
        case "quanto-int8" | "quanto-fp8":
            return (count, rows * element_bytes, element_bytes, element_bytes)
        case "quanto-int4":
            return (*_quanto_int4(rows, columns, element_bytes), element_bytes, element_bytes)
    elements, size = BLOCKS[scheme.removeprefix(_GGUF)]
    return None if columns % elements else (count // elements * size,)


def _quanto_int4(rows: int, columns: int, element_bytes: int) -> Sequence[int]:
    """Return packed numbers, and a scale and a shift a group, or a row where none divides it.

    Source: optimum-quanto, nn/qmodule.py.
    """
    group = 128
    packed = -(-rows // 2) * columns
    if columns > group:
        while columns % group and group > 32:
            group -= 32
        if columns % group == 0:
            return (packed, 2 * (rows * columns // group) * element_bytes)
    return (packed, rows * element_bytes, rows * element_bytes)


def in_bytes(size: int | str, element_bytes: int) -> int:
    """Return what a module's tensor takes: elements each, or bytes as text."""
    return int(size[:-1]) if isinstance(size, str) else size * element_bytes


def sizes_of(modules: ModuleList, scheme: str | None, element_bytes: int) -> tuple[int, ...]:
    """Return the bytes of each module of a list as a way of quantising holds it; None of none."""
    return _sizes(ById(modules), scheme, element_bytes)


@lru_cache(maxsize=256)  # of thousands of modules, and asked for at every size of a plan
def _sizes(modules: ById[ModuleList], scheme: str | None, element_bytes: int) -> tuple[int, ...]:
    held = (
        one.tensors if scheme is None else quantise(one, scheme, element_bytes)
        for one in modules.of.modules
    )
    return tuple(sum(in_bytes(size, element_bytes) for size in tensors) for tensors in held)


@lru_cache(maxsize=256)
def _largest(modules: ById[ModuleList], scheme: str, element_bytes: int) -> int:
    """Return the elements of the largest module that is quantised."""
    return max(
        (
            one.elements
            for one in modules.of.modules
            if quantise(one, scheme, element_bytes) != one.tensors
        ),
        default=0,
    )


def linear_and_all(modules: ModuleList) -> tuple[int, int]:
    """Return the elements of the layers that quantisers take, and of all."""
    return _linear_and_all(ById(modules))


def linear_in_all(lists: Mapping[str, ModuleList]) -> tuple[int, int]:
    """Return the same of all components."""
    both = [linear_and_all(modules) for modules in lists.values()]
    return sum(taken for taken, _ in both), sum(whole for _, whole in both)


@lru_cache(maxsize=256)
def _linear_and_all(modules: ById[ModuleList]) -> tuple[int, int]:
    every = modules.of.modules
    taken = sum(one.elements for one in every if one.rows and not one.is_kept)
    return taken, sum(one.elements for one in every)


def how_sure(scheme: str, modules: ModuleList) -> tuple[Origin, str]:
    """Return how sure the bytes of quantised weights are, and why."""
    if modules.is_by_names:
        return Origin.ASSUMED, "which layers are quantised is told by their tensors' names"
    if scheme.startswith(_GGUF):
        kind = scheme.removeprefix(_GGUF)
        return Origin.ASSUMED, f"as if every linear layer were {kind}: a file's own header decides"
    if scheme == "torchao-int4":
        return Origin.PUBLISHED, "torchao 0.18.0, workflows/int4/int4_tensor.py"
    return Origin.EXACT, f"counted from the class's layers, {scheme} with its scales"


def _rule(scheme: str, element_bytes: int) -> _Unpacked:
    """Return what a scheme unpacks, of a matrix in numbers of this many bytes."""
    if scheme.startswith(_GGUF):
        hundredths = _GGUF_UNPACKED[scheme.removeprefix(_GGUF)]
        if element_bytes == _FP32:
            hundredths = max(hundredths, _GGUF_FP32)
        share = -(-hundredths // element_bytes)
        return _Unpacked(matrix=(share, share))
    if scheme == "torchao-fp8" and element_bytes == _FP32:
        return _Unpacked(matrix=(200, 200))
    return _UNPACKED[scheme]


def unpacked_band(scheme: str, modules: ModuleList, element_bytes: int, working_bytes: int) -> Band:
    """Return what a quantised layer may take beside its result while it runs.

    Where linear layers are less than half of a component, its peak is hardly in one of them; where
    they are less than a tenth (an autoencoder's few) they see maps far smaller than those at the
    peak.
    """
    rule = _rule(scheme, element_bytes)
    largest = _largest(ById(modules), scheme, element_bytes)
    matrix = largest * element_bytes
    if scheme == "bnb-4bit-dq":  # the scales are unpacked first, to fp32
        matrix += -(-largest // _BNB_BLOCK) * _FP32
    linear, whole = linear_and_all(modules)
    worked = working_bytes if 10 * linear >= whole else 0
    expected = matrix * rule.matrix[0] + worked * rule.work[0] if 2 * linear >= whole else 0
    most = matrix * rule.matrix[1] + worked * rule.work[1]
    return Band(low_bytes=0, expected_bytes=expected // 100, high_bytes=most // 100)
