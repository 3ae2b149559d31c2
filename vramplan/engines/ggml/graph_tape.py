"""Finds the graph tape that a model belongs to, and puts its graph together from it.

Tapes ship in ``profiles/graphs``, a file an architecture; one is read only for a model that needs
it. What a tape was not made of (another set of tensors, other keys, another build) it says nothing
about.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from vramplan.catalog.shipped import profiles_dir
from vramplan.engines.ggml.graph.tape import (
    KEYS,
    VALUES,
    Composer,
    Tape,
    TapeDomainError,
    Tapes,
    class_of,
    measure,
)
from vramplan.engines.ggml.graph.tape_file import read_tapes
from vramplan.engines.ggml.tape_quantities import SHAPED, Quantities, features, is_of_layer
from vramplan.engines.ggml.windows import RULES
from vramplan.quick_typing import TYPE_CHECKING
from vramplan.sources.block_sizes import BLOCKS

if TYPE_CHECKING:
    from vramplan.engines.ggml.build_rules import EngineRules
    from vramplan.engines.ggml.closed_form import Batch
    from vramplan.engines.ggml.graph.recording import Recording
    from vramplan.engines.ggml.weights import GgmlModel

_OUTPUT = "output.weight"
#: tokens of a sequence that a tape's batch has at least: of fewer the engine makes other graphs
_FEWEST = 8
#: tokens of a batch, of fewer of which norms are computed elsewhere than of more
_SMALLEST = 32


_NAME = r"[a-z0-9][a-z0-9._-]{0,63}"  # compiled where it is used


def recorded_graph(model: GgmlModel, batch: Batch, rules: EngineRules) -> Recording | None:
    """Return a model's graph at a batch from the tape that ships; None where there is none.

    Raises TapeError for a file that is no tape.
    """
    if model.language is None or not model.tensors:
        return None
    if batch.pooling or batch.outputs or batch.has_all_outputs:  # one result a sequence, no more
        return None
    if batch.tokens < _SMALLEST:
        return None
    if (
        batch.is_cache_on_host and not batch.has_flash
    ):  # attention is on the CPU: tapes tell no names
        return None
    tapes = tapes_of(model.architecture)
    if tapes is None or tapes.build != f"b{rules.build}":
        return None
    return _composed(model, batch)


@lru_cache(maxsize=8)
def tapes_of(architecture: str) -> Tapes | None:
    """Return the tapes that ship for an architecture; None where there are none."""
    if not re.fullmatch(_NAME, architecture):
        return None
    path = profiles_dir() / "graphs" / f"{architecture}.json.gz"
    return read_tapes(path) if path.is_file() else None


@lru_cache(maxsize=32)
def _composed(model: GgmlModel, batch: Batch) -> Recording | None:
    tapes = tapes_of(model.architecture)
    if tapes is None:
        return None
    for tape in tapes.tapes:
        try:
            return compose(tapes, tape, model, batch)
        except TapeDomainError:
            continue
    return None


def mode_of(batch: Batch) -> tuple[bool, str]:
    """Return the kind of settings that a batch is of."""
    if batch.sequences == 1:
        return batch.has_flash, "one"
    return batch.has_flash, "in one" if batch.is_unified else "apart"


def compose(tapes: Tapes, tape: Tape, model: GgmlModel, batch: Batch) -> Recording:
    """Return the graph of a batch. Raises TapeDomainError."""
    quantities = Quantities(model, batch)
    check(tapes, tape, quantities)
    mode = tape.modes.get(mode_of(batch))
    if mode is None:
        raise TapeDomainError("these settings were not recorded")
    for type_name in (batch.cache_type, batch.type_of_values):
        if BLOCKS[type_name][0] == 1 and type_name != "f16":
            raise TapeDomainError(f"a cache of {type_name} was not recorded")
    if quantities.settings["tokens_each"] < _FEWEST:
        raise TapeDomainError("so few tokens were not recorded")
    composer = Composer(
        tapes.sizes,
        tapes.names,
        {KEYS: batch.cache_type, VALUES: batch.type_of_values},
        {
            tensor.name: (tensor.type, tensor.shape)
            for tensor in model.tensors
            if not tensor.is_shared
        },
    )
    composer.put(mode.head, -1, _values(tapes, quantities, -1))
    for layer, told in enumerate(features(model, batch)):
        part = mode.layers.get(tuple(told[name] for name in tape.features))
        if part is None:
            raise TapeDomainError(f"layer {layer} is of no kind that was recorded")
        composer.put(part, layer, _values(tapes, quantities, layer), quantities.cache_of(layer))
    return composer.graph(tapes.build, mode.inputs)


def _values(tapes: Tapes, quantities: Quantities, layer: int) -> Sequence[int | None]:
    found = quantities.of(layer)
    return [found.get(name) for name in tapes.names]


def check(tapes: Tapes, tape: Tape, quantities: Quantities) -> None:
    """Raise TapeDomainError for a model that is not of a tape's domain."""
    model, domain = quantities.model, tape.domain
    rule = RULES.get(model.architecture)
    if rule is not None and rule.is_fixed and model.layers <= (rule.period or 0):
        raise TapeDomainError("no more layers than a window's period, of which all are alike")
    outside = {
        tensor.name for tensor in model.tensors if not is_of_layer(tensor) and not tensor.is_shared
    }
    if outside - {_OUTPUT} != domain.outside:
        other = sorted((outside - {_OUTPUT}) ^ domain.outside)
        raise TapeDomainError(f"other tensors outside of layers: {other[0]}")
    if (_OUTPUT in outside) not in domain.outputs:
        raise TapeDomainError(f"{_OUTPUT} is {'there' if _OUTPUT in outside else 'missing'}")
    for key, classes in domain.classes.items():
        if key in SHAPED and key not in model.keys:
            continue  # the layers' shapes have its default
        if class_of(model.keys.get(key)) not in classes:
            raise TapeDomainError(f"{key} is {model.keys.get(key)!r:.40}")
    for layer in range(model.layers):
        values = _values(tapes, quantities, layer)
        for name, size in domain.relations:
            if values[name] != measure(tapes.sizes[size], values, tapes.names):
                raise TapeDomainError(f"{tapes.names[name]} is {values[name]}")
