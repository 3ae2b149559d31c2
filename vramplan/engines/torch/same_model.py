"""Is a saved model the same architecture as one of the catalogue's? Then its tape is that one's.

Fine-tunes, merges and distillations change the values of a model's weights and not their shapes. A
component is the same where its class is the same, and its floating-point tensors have the
sizes of the catalogued component's, each as often: names differ between layouts and versions, but
no other model has the same hundreds of sizes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vramplan.catalog.pipelines import TORCH_RUNTIMES, Entry
from vramplan.engines.torch.open import open_entry
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.tape.contents import Weights
from vramplan.engines.torch.tape.format import read_tape
from vramplan.engines.torch.tape_files import find_tape
from vramplan.errors import TapeError
from vramplan.sources.saved_model import Part, SavedModel

#: floating-point types that a component is computed in when it is loaded from them
_FLOATS = ("F16", "BF16", "F32", "F64")
#: what a pipeline runs without
_OPTIONAL = "safety_checker"


def find_same(
    model: SavedModel, entries: Iterable[Entry], folders: Sequence[Path]
) -> TorchPipeline | None:
    """Return the catalogue's pipeline of a saved model's architecture, or None.

    A pipeline without a safety checker is the same as one with it, where there is a setting to say
    so. Tapes are looked for in `folders`.
    """
    for entry in entries:
        if entry.runtime not in TORCH_RUNTIMES or not entry.text("tape"):
            continue
        pipeline = open_entry(entry, folders)
        if _is_same(model, pipeline):
            return pipeline
    return None


def _is_same(model: SavedModel, pipeline: TorchPipeline) -> bool:
    """Return whether every component is there, and is the same."""
    specs = {spec.name: spec for spec in pipeline.components}
    classes = {name: spec.class_path for name, spec in specs.items()}
    parts = _named_alike(model, classes)
    missing = classes.keys() - parts.keys()
    if parts.keys() - classes.keys() or missing - {_OPTIONAL}:
        return False
    if missing and _OPTIONAL not in pipeline.defaults:
        return False
    if any(part.class_path and _last(part) != _word(classes[n]) for n, part in parts.items()):
        return False
    if not all(_is_as_large(part, specs[name].parameters) for name, part in parts.items()):
        return False
    try:
        tape = read_tape(find_tape(pipeline))
    except TapeError:
        return False
    weights = tape.components
    return all(
        name in weights and has_sizes_of(part, weights[name]) for name, part in parts.items()
    )


def _is_as_large(part: Part, parameters: int | None) -> bool:
    """Return whether a part may be one of so many parameters, before a tape of it is read.

    It has those, and the buffers that files hold beside them, of which there are never as many.
    """
    if parameters is None:
        return True
    saved = sum(tensor.elements for tensor in part.tensors if tensor.dtype in _FLOATS)
    return parameters <= saved <= 2 * parameters


def _named_alike(model: SavedModel, classes: Mapping[str, str]) -> dict[str, Part]:
    """Return the parts by the catalogue's names: a lone model is whatever the one there is."""
    if len(model.parts) == 1 == len(classes):
        return {next(iter(classes)): model.parts[0]}
    return {part.name: part for part in model.parts}


def _last(part: Part) -> str:
    return _word(part.class_path)


def _word(class_path: str) -> str:
    return class_path.rpartition(".")[2]


def has_sizes_of(part: Part, weights: Weights) -> bool:
    """Return whether a part's tensors are those of a catalogued component, by their sizes.

    The component may have buffers that no file has (they are computed), never fewer parameters.
    """
    if any(not _is_counted(tensor.dtype) for tensor in part.tensors):
        return False  # quantised: other tensors, and other work
    saved = Counter(one.elements for one in part.tensors if one.dtype in _FLOATS)
    held = Counter(size for module in weights.modules for size in module if isinstance(size, int))
    # a text such as ``616B`` stands for a buffer of fixed bytes
    if saved - held:
        return False
    return sum(size * count for size, count in saved.items()) >= weights.parameters


def _is_counted(dtype: str) -> bool:
    """Return whether a type is a float of full use, or a whole number as positions have it."""
    return dtype in _FLOATS or dtype in ("I64", "I32", "BOOL")
