"""Weights as a job's settings have them: quantised, with adapters, in groups; and its tape then.

A tape's code stays what it is: what runs is allocated alike, whatever the weights are held in. What
settings change is which tensors a component has on the device, so a tape is replayed with others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from zlib import crc32

from vramplan.dtypes import ELEMENT_BYTES
from vramplan.engines.torch.by_identity import ById
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.known_settings import IDLE, OF_GROUPS, OF_WEIGHTS
from vramplan.model import Band, Origin, Settings, SettingValue
from vramplan.quick_dataclass import dataclass, replace
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:  # what changes nothing needs none of it
    from vramplan.engines.torch.adapters import Adapter
    from vramplan.engines.torch.counted_model import CountedModel, CountedPart
    from vramplan.engines.torch.module_list import Module, ModuleList
    from vramplan.engines.torch.networks import Network
    from vramplan.engines.torch.result import PartWeights
    from vramplan.engines.torch.tape.contents import Tape, Weights
    from vramplan.sources.saved_model import SavedModel

_NOTHING = Band.exactly(0)

#: part of a result's key: raise it when what adapters compute is counted otherwise
_ADAPTERS_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What settings change of weights; `schemes` are the ways to quantise them, by component."""

    schemes: Mapping[str, str]
    adapters: tuple[Adapter, ...]
    networks: tuple[Network, ...]
    lists: Mapping[str, ModuleList]
    is_grouped: bool

    def networks_beside(self, component: str) -> tuple[Network, ...]:
        """Return the networks that share a component's time on the device."""
        return tuple(one for one in self.networks if one.beside == component)

    def dtype_of(self, part: PartWeights, dtype: str) -> str:
        """Return what a part is held in; a network beside it is not quantised with it."""
        if any(network.name == part.name for network in self.networks):
            return dtype
        return self.schemes.get(part.component, dtype)


def is_grouped(settings: Settings) -> bool:
    """Return whether components come to the device in groups."""
    return settings.get("offload") == "group"


def are_changed(settings: Settings) -> bool:
    """Return whether settings change what a component holds on the device."""
    return is_grouped(settings) or any(
        settings.get(key, IDLE[key]) != IDLE[key] for key in OF_WEIGHTS
    )


def has_adapters(settings: Settings) -> bool:
    """Return whether settings name LoRA adapters."""
    return settings.get("lora", IDLE["lora"]) != IDLE["lora"]


def lists_of(name: str | None, saved: SavedModel | None) -> Mapping[str, ModuleList]:
    """Return the layers of a pipeline's components; none where nobody knows them."""
    from vramplan.engines.torch.module_list import shipped_modules

    if name is not None:
        return shipped_modules(name)
    return _saved_lists(ById(saved)) if saved is not None else {}


@lru_cache(maxsize=4)  # what is worked out from a list is remembered by the list itself
def _saved_lists(saved: ById[SavedModel]) -> Mapping[str, ModuleList]:
    from vramplan.engines.torch.module_list import saved_modules

    return saved_modules(saved.of)


def changes_at(pipeline: TorchPipeline, settings: Settings) -> Changes:
    """Return what settings change. Raises UsageError for what the pipeline cannot have."""
    names = tuple(spec.name for spec in pipeline.components)
    return _changes(lists_of(pipeline.module_list, pipeline.saved), names, settings)


def _changes(lists: Mapping[str, ModuleList], names: Sequence[str], settings: Settings) -> Changes:
    from vramplan.engines.torch.adapters import adapters_of
    from vramplan.engines.torch.networks import networks_of
    from vramplan.engines.torch.quantised import schemes_at

    return Changes(
        schemes=schemes_at(settings, names or list(lists), lists),
        adapters=adapters_of(settings, lists),
        networks=networks_of(settings, lists),
        lists=lists,
        is_grouped=is_grouped(settings),
    )


def mostly_linear(pipeline: TorchPipeline) -> bool:
    """Return whether most of a pipeline's weights are in layers that quantisers take."""
    from vramplan.engines.torch.module_list import shipped_linear
    from vramplan.engines.torch.quantised import linear_in_all

    name = pipeline.module_list
    told = None if name is None else shipped_linear(name)
    taken, whole = told or linear_in_all(lists_of(name, pipeline.saved))
    return 2 * taken > whole


def how_sure(found: Changes, component: str, part: str = "") -> tuple[Origin, str] | None:
    """Return how sure a component's bytes are, and why; None where nothing of it is changed.

    `part` is what of it is asked about, where that is a network beside it.
    """
    from vramplan.engines.torch import adapters, quantised

    for network in found.networks:
        if network.name == part:
            return network.origin, network.source
    if component not in found.lists:
        return None
    modules, said = found.lists[component], []
    if component in found.schemes:
        said.append(quantised.how_sure(found.schemes[component], modules))
    if adapters.added_tensors(component, modules, found.adapters, 1):
        said.append(adapters.how_sure(found.adapters))
    if found.is_grouped:
        source = "what is there at once where that is most: diffusers, hooks/group_offloading.py"
        said.append((Origin.PUBLISHED, source))
    if not said:
        return None
    order = list(Origin)
    weakest = max(said, key=lambda one: order.index(one[0]))[0]
    return weakest, "; ".join(text for _, text in said)


def changes_key(pipeline: TorchPipeline, settings: Settings) -> str:
    """Return what a result's key says of changes beside the settings: lists and files may change.

    It is empty where nothing is changed.
    """
    if not are_changed(settings):
        return ""
    found = changes_at(pipeline, settings)
    lists = sorted((name, _checksum(ById(modules))) for name, modules in found.lists.items())
    told = repr((found.schemes, found.adapters, found.networks, lists))
    if found.adapters:
        told += f" {_ADAPTERS_VERSION}"
        more = [(one.copies, one.experts) for one in found.adapters if one.copies or one.experts]
        told += f" {more}" if more else ""
    return f" changed={crc32(told.encode()):08x}"


@lru_cache(maxsize=64)  # a plan asks for every way and size, and a list has thousands of modules
def _checksum(modules: ById[ModuleList]) -> int:
    return crc32(repr(modules.of).encode())


# ------------------------------------------------------------------------------- of a tape
def changed_tape(pipeline: TorchPipeline, settings: Settings, path: Path) -> Tape:
    """Return the tape in `path` with the weights that settings leave on the device.

    Raises UsageError for what the pipeline cannot have.
    """
    from vramplan.engines.torch.tape_files import open_tape

    tape = open_tape(path)
    if not are_changed(settings):
        return tape
    names = tuple(spec.name for spec in pipeline.components)
    lists = pipeline.module_list, ById(pipeline.saved)
    return _changed_tape(ById(tape), *lists, names, _asked(settings))


def _asked(settings: Settings) -> tuple[tuple[str, SettingValue], ...]:
    keys = ("dtype", "offload", *OF_WEIGHTS, *OF_GROUPS)
    return tuple((key, settings[key]) for key in keys if key in settings)


@lru_cache(maxsize=16)
def _changed_tape(
    tape: ById[Tape],
    module_list: str | None,
    saved: ById[SavedModel | None],
    names: tuple[str, ...],
    asked: tuple[tuple[str, SettingValue], ...],
) -> Tape:
    settings = dict(asked)
    found = _changes(lists_of(module_list, saved.of), names, settings)
    element_bytes = element_bytes_of(settings)
    components = {
        name: _changed(name, weights, found, settings, element_bytes)
        for name, weights in tape.of.components.items()
    }
    return replace(tape.of, components=components)


def element_bytes_of(settings: Settings) -> int:
    """Return the bytes of an element of a job's dtype."""
    return ELEMENT_BYTES[str(settings.get("dtype", "fp32"))]


def _changed(
    name: str, weights: Weights, found: Changes, settings: Settings, element_bytes: int
) -> Weights:
    from vramplan.engines.torch.adapters import added_tensors
    from vramplan.engines.torch.group_offload import resident
    from vramplan.engines.torch.module_list import match

    modules = found.lists.get(name)
    if modules is None:
        return weights
    places = match(modules, weights)
    scheme = found.schemes.get(name)
    held = [
        tensors if place is None else _tensors(place, tensors, scheme, element_bytes)
        for place, tensors in zip(places, weights.modules, strict=True)
    ]
    if found.is_grouped:
        changed = replace(weights, modules=tuple(held))
        sizes = [sum(changed.tensor_bytes(number, element_bytes)) for number in range(len(held))]
        there = set(resident(modules, places, sizes, settings))
        held = [tensors if number in there else () for number, tensors in enumerate(held)]
    added = added_tensors(name, modules, found.adapters, element_bytes)
    changed = replace(weights, modules=(*held, *((size,) for size in added)))
    return _with_networks(changed, found.networks_beside(name))


def _with_networks(weights: Weights, networks: Sequence[Network]) -> Weights:
    """Return a component's tensors with those of networks, each a part with a name of its own."""
    from vramplan.engines.torch.tape.contents import ON_ITS_OWN

    for network in networks:
        count = len(weights.modules)
        named = weights.parts or {"": tuple(range(count))}
        part = f"{ON_ITS_OWN}{network.name}"
        mine = tuple(range(count, count + len(network.modules)))
        weights = replace(
            weights,
            modules=(*weights.modules, *network.modules),
            parts={**named, part: mine},
            part_parameters={**weights.part_parameters, part: network.parameters},
        )
    return weights


def _tensors(
    place: Module, taped: tuple[int | str, ...], scheme: str | None, element_bytes: int
) -> tuple[int | str, ...]:
    """Return a module's tensors; one that is left as it is, is as the tape has it."""
    if scheme is None:
        return taped
    from vramplan.engines.torch.quantised import quantise

    quantised = quantise(place, scheme, element_bytes)
    return taped if quantised == place.tensors else quantised


def whole_bytes(pipeline: TorchPipeline, settings: Settings) -> dict[str, int]:
    """Return what each part of a pipeline takes that comes in groups, all of it together."""
    from vramplan.engines.torch.tape_files import find_tape

    tape = changed_tape(pipeline, {**settings, "offload": "none"}, find_tape(pipeline))
    element_bytes = element_bytes_of(settings)
    found: dict[str, int] = {}
    for component, weights in tape.components.items():
        named = weights.parts or {"": tuple(range(len(weights.modules)))}
        for part, numbers in named.items():
            sizes = (sum(weights.tensor_bytes(number, element_bytes)) for number in numbers)
            found[tape.part_name(component, part)] = sum(sizes)
    return found


# ------------------------------------------------------------------------- of what is counted
def counted_at(pipeline: TorchPipeline, model: CountedModel, settings: Settings) -> CountedModel:
    """Return what is counted of a model with the weights that settings leave on the device."""
    if not are_changed(settings):
        return model
    names = tuple(spec.name for spec in pipeline.components)
    lists = pipeline.module_list, ById(pipeline.saved)
    return _changed_model(model, *lists, names, _asked(settings))


@lru_cache(maxsize=64)  # a plan asks for the same weights at every size
def _changed_model(
    model: CountedModel,
    module_list: str | None,
    saved: ById[SavedModel | None],
    names: tuple[str, ...],
    asked: tuple[tuple[str, SettingValue], ...],
) -> CountedModel:
    settings = dict(asked)
    found = _changes(lists_of(module_list, saved.of), names, settings)
    parts = tuple(_changed_part(part, found, settings) for part in model.parts)
    return replace(model, parts=parts)


def _changed_part(part: CountedPart, found: Changes, settings: Settings) -> CountedPart:
    from vramplan.engines.torch.adapters import added_tensors
    from vramplan.engines.torch.group_offload import resident
    from vramplan.engines.torch.quantised import in_bytes, sizes_of

    modules = found.lists.get(part.name)
    if modules is None:
        return part
    element_bytes = ELEMENT_BYTES[part.dtype or str(settings["dtype"])]
    scheme = found.schemes.get(part.name)
    sizes = sizes_of(modules, scheme, element_bytes)
    added = sum(
        in_bytes(size, element_bytes)
        for size in added_tensors(part.name, modules, found.adapters, element_bytes)
    ) + sum(one.bytes_at(element_bytes) for one in found.networks_beside(part.name))
    shown = part.quantised if scheme is None else scheme
    if found.is_grouped:
        there = resident(modules, modules.modules, sizes, settings)
        fixed = sum(sizes[number] for number in there) + added
        return replace(part, elements=0, kept_elements=0, fixed_bytes=fixed, quantised=shown)
    # what files have beside the list, and what a class keeps in fp32, stays counted as it was
    less = sum(sizes_of(modules, None, element_bytes)) - sum(sizes)
    return replace(part, fixed_bytes=part.fixed_bytes - less + added, quantised=shown)


# ------------------------------------------------------------------------------ while it runs
@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What layers take beside their results: matrices that are unpacked, and adapters' results.

    `networks` are the results of ControlNets and IP-Adapters.
    """

    unpacked: Band
    adapters: Band
    networks: Band = _NOTHING

    @property
    def band(self) -> Band:
        """All together."""
        return self.unpacked + self.adapters + self.networks


NOTHING_BESIDE = Beside(unpacked=_NOTHING, adapters=_NOTHING)


def beside(
    pipeline: TorchPipeline, settings: Settings, component: str, working_bytes: int
) -> Beside:
    """Return what the layers of the component at work take beside their results.

    `working_bytes` is what is live beside weights. Where another component is at work than those
    that are changed, less is live while theirs run; a matrix of theirs may still make the peak.
    """
    if not are_changed(settings):
        return NOTHING_BESIDE
    found = changes_at(pipeline, settings)
    element_bytes = element_bytes_of(settings)
    top = component.partition(".")[0]
    # a tape has what adapters compute in its code
    shared_bytes = 0 if pipeline.counted is None else working_bytes
    layers = _beside_layers(found, top, element_bytes, working_bytes, shared_bytes)
    if not found.networks:
        return layers
    from vramplan.engines.torch.networks import results_band

    return replace(layers, networks=results_band(found.networks, settings, top, element_bytes))


def _beside_layers(
    found: Changes, top: str, element_bytes: int, working_bytes: int, shared_bytes: int
) -> Beside:
    if top not in found.lists and len(found.lists) == 1:  # a part of one model, such as its tower
        top = next(iter(found.lists))
    if top in found.lists:
        here = _beside(top, found, element_bytes, working_bytes, shared_bytes)
        if here.band.high_bytes:
            return here
    others = [_beside(name, found, element_bytes, 0, 0) for name in found.lists]
    return Beside(
        unpacked=_at_most(one.unpacked for one in others),
        adapters=_at_most(one.adapters for one in others),
    )


def _beside(
    name: str, found: Changes, element_bytes: int, working_bytes: int, shared_bytes: int
) -> Beside:
    from vramplan.engines.torch.adapters import adapter_band
    from vramplan.engines.torch.quantised import unpacked_band

    modules, scheme = found.lists[name], found.schemes.get(name)
    return Beside(
        unpacked=_NOTHING
        if scheme is None
        else unpacked_band(scheme, modules, element_bytes, working_bytes),
        adapters=adapter_band(name, modules, found.adapters, element_bytes, shared_bytes),
    )


def _at_most(bands: Iterable[Band]) -> Band:
    most = max((band.expected_bytes for band in bands), default=0)
    return Band(low_bytes=0, expected_bytes=0, high_bytes=most)


def beside_at_limit(
    pipeline: TorchPipeline,
    settings: Settings,
    component: str,
    limit_bytes: int,
    parts: Sequence[PartWeights],
) -> Band:
    """Return the same where a run's least limit is, which is torch's own memory in bytes."""
    if not are_changed(settings):
        return _NOTHING
    top = component.partition(".")[0]
    stays = settings.get("offload", "none") == "none"
    held = sum(part.weights_bytes for part in parts if stays or part.component == top)
    return beside(pipeline, settings, component, max(0, limit_bytes - held)).band
