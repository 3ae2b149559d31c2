"""The layers of a pipeline's components: their names, kinds and sizes, as their classes build them.

What is quantised, cast, adapted or moved in groups goes by them. Lists ship for the catalogue
(``python -m tools.module_lists`` makes them from the classes); of a saved model the names and
shapes of its tensors tell them, without what only its class would know.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from vramplan.catalog.shipped import profiles_dir
from vramplan.codec import JsonError, Limits, read_object, rows, text_of, whole
from vramplan.engines.torch.pipeline import MODULES
from vramplan.errors import TapeError
from vramplan.known_results import find_shipped
from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.engines.torch.tape.contents import Weights
    from vramplan.sources.saved_model import Part, SavedModel

#: beside the lists, what of each is linear
LINEAR_FILE = "linear.json"

#: a layer that multiplies a matrix; another that a hook can cast or move; what is neither
LINEAR, LAYER, OTHER = "linear", "layer", "other"
_KINDS = frozenset({LINEAR, LAYER, OTHER})
_LIMITS = Limits(text_bytes=8 << 20, parsed_bytes=128 << 20)
_MOST_COMPONENTS, _MOST_MODULES, _MOST_TENSORS, _LONGEST = 32, 100_000, 64, 300
_FLOATS = frozenset({"F16", "BF16", "F32", "F64"})
#: how tables are called that look like matrices: rows for words, positions, times or places
_TABLES = ("embed", "shared", "relative_attention_bias", "wte", "wpe", "codebook", "_table")
#: and heads, which quantisers leave as they are
_HEADS = ("lm_head", "proj_out", "embed_out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A module with tensors of its own: elements each, an `int`, or bytes of other types as text.

    Of a linear layer the first tensor is its matrix, which has so many `rows` (outputs).
    `is_kept`: quantisers leave it; `is_uncast`: layerwise casting does.
    """

    name: str
    kind: str
    rows: int
    tensors: tuple[int | str, ...]
    is_kept: bool = False
    is_uncast: bool = False

    @property
    def elements(self) -> int:
        """The elements of its matrix, or of all its tensors."""
        sizes = [size for size in self.tensors if isinstance(size, int)]
        return sizes[0] if self.kind == LINEAR and sizes else sum(sizes)

    @property
    def columns(self) -> int:
        """The inputs of a linear layer."""
        return self.elements // self.rows if self.rows else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleList:
    """A component's modules, in the order in which they are loaded.

    `lists` are the lists whose items are the blocks of group offload, `inner` the modules that look
    for blocks of their own. `is_by_names`: told by the names of a file's tensors.
    """

    modules: tuple[Module, ...]
    is_of_transformers: bool
    lists: tuple[str, ...] = ()
    inner: tuple[str, ...] = ()
    is_by_names: bool = False


def match(modules: ModuleList, weights: Weights) -> list[Module | None]:
    """Return for each module of a tape's weights the one of the list that it is, by its sizes.

    Where both have as many, of the same sizes, it is by place. A tape may have other modules (a
    component is used in part), or in another order.
    """
    told = [_sizes(one.tensors) for one in modules.modules]
    taped = [_sizes(tensors) for tensors in weights.modules]
    if len(told) == len(taped) and all(
        mine == theirs or not theirs for mine, theirs in zip(told, taped, strict=True)
    ):
        return list(modules.modules)
    waiting: dict[tuple[int, ...], deque[Module]] = {}
    for sizes, module in zip(told, modules.modules, strict=True):
        waiting.setdefault(sizes, deque()).append(module)
    return [waiting[sizes].popleft() if waiting.get(sizes) else None for sizes in taped]


def _sizes(tensors: Sequence[int | str]) -> tuple[int, ...]:
    return tuple(size for size in tensors if isinstance(size, int))


# ----------------------------------------------------------------------------- that ship
def shipped_modules(name: str) -> Mapping[str, ModuleList]:
    """Return the lists of an entry of ours, by component; none where it has none.

    Raises TapeError for a file that is damaged.
    """
    path = profiles_dir() / MODULES / f"{name}.json.gz"
    return _read(path) if path.is_file() else {}


def shipped_linear(name: str) -> tuple[int, int] | None:
    """Return what `quantised.linear_and_all` gives of all components of an entry of ours.

    It ships beside the lists, which are long; None where it does not.
    """
    return find_shipped(profiles_dir() / MODULES / LINEAR_FILE, name, _two)


def _two(raw: object) -> tuple[int, int] | None:
    try:
        taken, every = map(whole, rows(raw, 2))
    except ValueError:
        return None
    return taken, every


@lru_cache(maxsize=4)
def _read(path: Path) -> Mapping[str, ModuleList]:
    try:
        raw = read_object(path, _LIMITS)
    except JsonError as problem:
        raise TapeError(str(problem)) from None
    components = raw.get("components")
    if not isinstance(components, dict) or len(components) > _MOST_COMPONENTS:
        raise TapeError(f"{path}: components is not a mapping of a few")
    try:
        return {text_of(name, _LONGEST): read_component(one) for name, one in components.items()}
    except (ValueError, TypeError, KeyError) as problem:
        raise TapeError(f"{path}: is damaged: {problem}") from None


def read_component(raw: object) -> ModuleList:
    """Return a component's list from JSON's values; raises ValueError, TypeError or KeyError."""
    if not isinstance(raw, dict):
        raise TypeError("a component is not a mapping")
    kept, uncast = (frozenset(_texts(raw[key])) for key in ("kept", "uncast"))
    return ModuleList(
        modules=tuple(_module(row, kept, uncast) for row in rows(raw["modules"], _MOST_MODULES)),
        is_of_transformers=raw["is_transformers"] is True,
        lists=tuple(_texts(raw["lists"])),
        inner=tuple(_texts(raw["inner"])),
    )


def _module(raw: object, kept: frozenset[str], uncast: frozenset[str]) -> Module:
    match rows(raw, 4):
        case [str(name), str(kind), int(height), list(sizes)] if kind in _KINDS:
            tensors = tuple(
                size if isinstance(size, str) else whole(size)
                for size in rows(sizes, _MOST_TENSORS)
            )
            return Module(
                name=text_of(name, _LONGEST),
                kind=kind,
                rows=whole(height),
                tensors=tensors,
                is_kept=name in kept,
                is_uncast=name in uncast,
            )
    raise ValueError("a module is not its name, kind, rows and sizes")


def _texts(raw: object) -> Iterator[str]:
    for text in rows(raw, _MOST_MODULES):
        yield text_of(text, _LONGEST)


# ------------------------------------------------------------------------ by tensors' names
def saved_modules(model: SavedModel) -> Mapping[str, ModuleList]:
    """Return the lists that the tensors of a saved model tell, by component.

    A matrix is a linear layer's unless it is called as tables of embeddings are.
    """
    return {part.name: _by_names(part) for part in model.parts}


def _by_names(part: Part) -> ModuleList:
    shapes: dict[str, list[tuple[str, tuple[int, ...], str, int]]] = {}
    for tensor in part.tensors:
        owner, _, last = tensor.name.rpartition(".")
        row = last, tensor.shape, tensor.dtype, tensor.size_bytes
        shapes.setdefault(owner, []).append(row)
    is_of_transformers = part.class_path.startswith("transformers.")
    found = [_named(name, own, is_of_transformers) for name, own in shapes.items()]
    tops = Counter(
        name.split(".")[0] for name in shapes if len(name.split(".")) > 1 and _is_number(name)
    )
    return ModuleList(
        modules=tuple(found),
        is_of_transformers=is_of_transformers,
        lists=tuple(tops),
        is_by_names=True,
    )


def _is_number(name: str) -> bool:
    return name.split(".")[1].isdigit()


def _named(
    name: str, own: Sequence[tuple[str, tuple[int, ...], str, int]], is_of_transformers: bool
) -> Module:
    ordered = sorted(own, key=lambda row: row[0] != "weight")
    tensors: list[int | str] = []
    for _, shape, dtype, size_bytes in ordered:
        elements = 1
        for side in shape:
            elements *= side
        tensors.append(elements if dtype in _FLOATS else f"{size_bytes}B")
    last, shape = ordered[0][:2]
    is_matrix = last == "weight" and len(shape) == 2 and isinstance(tensors[0], int)
    is_table = any(word in name.lower() for word in _TABLES)
    kind = LINEAR if is_matrix and not is_table else LAYER if len(shape) > 1 else OTHER
    is_kept = kind == LINEAR and is_of_transformers and name.endswith((*_HEADS, ".wo"))
    return Module(
        name=name,
        kind=kind,
        rows=shape[0] if kind == LINEAR else 0,
        tensors=tuple(tensors),
        is_kept=is_kept,
        is_uncast="norm" in name or "pos_embed" in name or "patch_embed" in name,
    )
