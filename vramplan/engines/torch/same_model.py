"""Is a saved model the same architecture as one of the catalogue's? Then its tape is that one's.

Fine-tunes, merges and distillations change the values of a model's weights and not their shapes. A
component is the same where its class is the same, its floating-point tensors have the sizes of the
catalogued component's, each as often (names differ between layouts and versions, but no other model
has the same hundreds of sizes), and its config says nothing else of how those are worked with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path

from vramplan.catalog.pipelines import TORCH_RUNTIMES, Entry
from vramplan.codec import Json
from vramplan.dtypes import ELEMENT_BYTES
from vramplan.engines.torch.open import open_entry
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.tape.contents import Weights
from vramplan.engines.torch.tape_files import look_for_tape, open_tape
from vramplan.errors import TapeError
from vramplan.model import ComponentSpec
from vramplan.quick_dataclass import replace
from vramplan.sources.saved_model import Part, SavedModel

#: floating-point types that a component is computed in when it is loaded from them
_FLOATS = ("F16", "BF16", "F32", "F64")
#: what a pipeline runs without
_OPTIONAL = "safety_checker"
#: what a config says that changes values, and no size: fine-tunes have their own
_OF_VALUES = frozenset((
    "attention_dropout", "begin_suppress_tokens", "bos_token_id", "decoder_start_token_id",
    "dropout", "dropout_rate", "embd_pdrop", "eos_token_id", "force_upcast",
    "forced_decoder_ids", "hidden_dropout_prob", "id2label", "initializer_factor",
    "initializer_range", "label2id", "latent_magnitude", "latent_shift", "latents_mean",
    "latents_std", "layer_norm_eps", "max_position_embeddings", "model_type", "norm_eps",
    "num_labels", "original_max_position_embeddings", "pad_token_id", "problem_type",
    "projection_dim", "rms_norm_eps", "rope_parameters", "rope_scaling", "rope_theta",
    "sample_size", "scaling_factor", "shift_factor", "suppress_tokens",
    "tie_word_embeddings",  # which tensors there are tells it
))  # fmt: skip
#: layers that keep a window of their cache: a config that has it, where ours has none, is another
_WINDOW = "sliding_window"


def find_same(
    model: SavedModel, entries: Iterable[Entry], folders: Sequence[Path], name: str = ""
) -> tuple[TorchPipeline, ...]:
    """Return the catalogue's pipelines of a saved model's architecture, the likeliest first.

    A pipeline without a safety checker is the same as one with it, where there is a setting to say
    so. Several have the same tensors, such as a model and one that was distilled from it: what
    configs say of values goes before, then what the model is called (`name`, and what its configs
    call it). Tapes are looked for in `folders`.
    """
    found = []
    for entry in entries:
        if entry.runtime not in TORCH_RUNTIMES or not _may_be_same(model, entry):
            continue
        pipeline = open_entry(entry, folders)
        if _is_same(model, pipeline):
            found.append((pipeline, _agreement(model, entry)))
    if len(found) > 1:
        called = " ".join((name, *_told_names(model)))
        names = [pipeline.name for pipeline, _ in found]
        found.sort(key=lambda one: (-one[1], -_fitness(one[0].name, called, names)))
    return tuple(pipeline for pipeline, _ in found)


def _agreement(model: SavedModel, entry: Entry) -> int:
    """Return how many numbers configs give as an entry does, less those they give otherwise."""
    specs = {spec.name: spec.config for spec in entry.components()}
    pairs = [
        (part.config.get(key), value)
        for name, part in _named_alike(model, specs.keys()).items()
        for key, value in specs[name].items()
        if key in _OF_VALUES
    ]
    scheduler = entry.scheduler()
    if scheduler is not None:
        said: Mapping[str, Json] = next(iter(model.schedulers.values()), {})
        pairs += [(said.get(key), value) for key, value in scheduler.config.items()]
    return sum(
        1 if said == value else -1
        for said, value in pairs
        if isinstance(said, bool | int | float) and isinstance(value, bool | int | float)
    )


def _told_names(model: SavedModel) -> Iterator[str]:
    for config in (model.config, *(part.config for part in model.parts)):
        said = config.get("_name_or_path")
        if isinstance(said, str):
            yield said[:200].rpartition("/")[2]


def likeness(name: str, text: str) -> int:
    """Return how well a text names an entry: characters that both have, less the others."""
    return _in_both(name, text) - len(_letters(name))


def _fitness(name: str, text: str, names: Sequence[str]) -> int:
    """Return how well a text names one of some entries: what a name adds to another's has to be."""
    bases = [one for one in names if one != name and name.startswith(one)]
    added = len(name) - len(max(bases, key=len)) if bases else 0
    return _in_both(name, text) - added


def _in_both(name: str, text: str) -> int:
    """Return twice the letters of the runs that both have."""
    one, other = _letters(name), _letters(text)
    blocks = SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks()
    return 2 * sum(block.size for block in blocks if block.size > 1)


def _letters(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalnum())


def _may_be_same(model: SavedModel, entry: Entry) -> bool:
    """Return whether a model's parts may be an entry's, before a tape of it is read."""
    class_path = entry.text("class")
    if class_path and model.kind == "pipeline" and _word(class_path) != model.class_name:
        return False
    specs = {spec.name: spec for spec in entry.components()}
    if not specs:
        return False
    parts = _named_alike(model, specs.keys())
    missing = specs.keys() - parts.keys()
    if parts.keys() - specs.keys() or missing - {_OPTIONAL}:
        return False
    if missing and _OPTIONAL not in entry.defaults:
        return False
    return all(_is_alike(part, specs[name]) for name, part in parts.items())


def _is_alike(part: Part, spec: ComponentSpec) -> bool:
    """Return whether a part may be a catalogued component: its class, parameters and config."""
    if part.class_path and _word(part.class_path) != _word(spec.class_path):
        return False
    return _is_as_large(part, spec.parameters) and _is_configured_alike(part.config, spec.config)


def _is_configured_alike(config: Mapping[str, Json], ours: Mapping[str, object]) -> bool:
    """Return whether a saved config says of its work what the catalogue's does.

    What only one of the two says is the class's own default in the other, or of no consequence;
    tensors' sizes tell the rest.
    """
    for key, value in ours.items():
        said = config.get(key, value)
        if isinstance(value, Mapping) and isinstance(said, Mapping):
            if not _is_configured_alike(said, value):
                return False
        elif key not in _OF_VALUES and said != value:
            return False
    if _WINDOW not in ours and config.get("use_sliding_window", True):
        return not isinstance(config.get(_WINDOW), int)
    return True


def _is_same(model: SavedModel, pipeline: TorchPipeline) -> bool:
    """Return whether every component has the sizes that the pipeline's tape tells."""
    name = pipeline.tape or pipeline.tape_within
    path = look_for_tape(replace(pipeline, tape=name)) if name else None
    if path is None:
        return False
    try:
        weights = open_tape(path).components
    except TapeError:
        return False
    parts = _named_alike(model, [spec.name for spec in pipeline.components])
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


def _named_alike(model: SavedModel, names: Collection[str]) -> dict[str, Part]:
    """Return the parts by the catalogue's names: a lone model is whatever the one there is."""
    if len(model.parts) == 1 == len(names):
        return {next(iter(names)): model.parts[0]}
    return {part.name: part for part in model.parts}


def _word(class_path: str) -> str:
    return class_path.rpartition(".")[2]


def has_sizes_of(part: Part, weights: Weights) -> bool:
    """Return whether a part's tensors are those of a catalogued component, by their sizes.

    The component may have buffers that no file has (they are computed), never fewer parameters.
    """
    if any(not _is_counted(tensor.dtype) for tensor in part.tensors):
        return False  # quantised: other tensors, and other work
    saved = Counter(one.elements for one in part.tensors if one.dtype in _FLOATS)
    sizes = [size for module in weights.modules for size in module]
    held = Counter(size for size in sizes if isinstance(size, int))
    # a text such as ``616B`` stands for a buffer of fixed bytes, or for what stays in fp32
    kept = Counter(
        int(size[:-1]) // ELEMENT_BYTES["fp32"] for size in sizes if isinstance(size, str)
    )
    if saved - held - kept:
        return False
    return sum(size * count for size, count in saved.items()) >= weights.parameters


def _is_counted(dtype: str) -> bool:
    """Return whether a type is a float of full use, or a whole number as positions have it."""
    return dtype in _FLOATS or dtype in ("I64", "I32", "BOOL")
