"""What Transformers' ``device_map="auto"`` puts on one GPU, and what it leaves to the CPU.

The loader offers itself 90 % of what is free, and keeps room there for the largest layer that is
still to be placed: it may have to bring one back. It goes through the model in its own order, and
from the first layer that does not fit, all the rest goes to the CPU. Source: transformers 5.23.0,
integrations/accelerate.py, `get_balanced_memory` and `infer_auto_device_map`; what is free is
cudaMemGetInfo's, CUDA context taken off (accelerate 1.15.0, utils/modeling.py, `get_max_memory`).
Host memory is taken to have room.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from vramplan.dtypes import ELEMENT_BYTES
from vramplan.engines.torch.job_tape import tape_at
from vramplan.engines.torch.tape_files import find_tape
from vramplan.model import LayerSplit, Settings
from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import TYPE_CHECKING, cast
from vramplan.setting_values import NONE

if TYPE_CHECKING:
    from vramplan.engines.torch.pipeline import TorchPipeline
    from vramplan.engines.torch.tape.contents import Tape, Weights

#: of what is free, how much the loader offers itself on one GPU, in per cent
OFFERED_PERCENT = 90
#: and of that again, where it quantises (`adjust_max_memory` of bitsandbytes, torchao and quanto,
#: quantizers/quantizer_*.py)
OFFERED_QUANTISED_PERCENT = 81

#: the parts of a model that generates text, what they are called, and whose config counts layers
_LANGUAGE, _HEAD = "language_model", "lm_head"
_TITLES = {
    "vision_encoder": "the vision encoder",
    "projector": "the projector",
    _LANGUAGE: "the language model",
    _HEAD: "its head",
}
_CONFIGS = {"vision_encoder": "vision_config", _LANGUAGE: "text_config"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A module as the loader sees it: one without children is placed as a whole."""

    name: str
    size_bytes: int
    children: tuple[Module, ...] = ()

    def layers(self) -> Iterator[Module]:
        """Yield what is placed as a whole, in order."""
        if not self.children:
            yield self
        for child in self.children:
            yield from child.layers()


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where the loader puts a model's layers; `on_cpu` are in the model's order."""

    offered_bytes: int
    on_gpu: tuple[Module, ...]
    on_cpu: tuple[Module, ...]

    @property
    def is_whole(self) -> bool:
        """True where all of the model is on the GPU."""
        return not self.on_cpu

    @property
    def cpu_bytes(self) -> int:
        """The weights that wait in system memory."""
        return sum(module.size_bytes for module in self.on_cpu)

    @property
    def largest_cpu_bytes(self) -> int:
        """The largest layer that is brought to the GPU for as long as it runs."""
        return max((module.size_bytes for module in self.on_cpu), default=0)

    def names_on_cpu(self) -> str:
        """Return what waits there: ``layers 30 to 31 of the language model, its head``."""
        said: list[str] = []
        for part, title in _TITLES.items():
            there = [one.name for one in self.on_cpu if one.name.partition(".")[0] == part]
            numbers = [int(name.rpartition(".")[2]) for name in there if ".layers." in name]
            if part in (_HEAD, "projector"):
                said += [title] if there else []
            elif numbers:
                last = f" to {numbers[-1]}" if len(numbers) > 1 else ""
                said.append(f"layer{'s' if last else ''} {numbers[0]}{last} of {title}")
        return ", ".join(said) or "what comes last"

    def split(self) -> LayerSplit:
        """Return how many of the language model's layers are on the GPU; its head counts as one."""
        here, there = (
            sum(module.name.startswith((f"{_LANGUAGE}.layers.", _HEAD)) for module in side)
            for side in (self.on_gpu, self.on_cpu)
        )
        return LayerSplit(total=here + there, on_gpu=here)


def offered_percent(settings: Settings) -> int:
    """Return how much of what is free the loader offers itself, in per cent."""
    is_plain = settings.get("quantization", NONE) == NONE
    return OFFERED_PERCENT if is_plain else OFFERED_QUANTISED_PERCENT


def offered_bytes(free_bytes: int, percent: int = OFFERED_PERCENT) -> int:
    """Return how much of a GPU's free memory the loader plans with."""
    return free_bytes * percent // 100


def place(model: Sequence[Module], free_bytes: int, percent: int = OFFERED_PERCENT) -> Placement:
    """Return where a model's children go on a GPU with so much free."""
    offered = offered_bytes(max(0, free_bytes), percent)
    waiting = list(model)
    on_gpu: list[Module] = []
    used = 0
    while waiting:
        first, rest = waiting[0], waiting[1:]
        # the largest layer of those behind it, whatever it is a part of
        kept_free = max((layer.size_bytes for one in rest for layer in one.layers()), default=0)
        if used + first.size_bytes <= offered - kept_free:
            used += first.size_bytes
            on_gpu += first.layers()
        elif first.children:
            rest = [*first.children, *rest]
        else:
            break
        waiting = rest
    on_cpu = tuple(layer for one in waiting for layer in one.layers())
    return Placement(offered_bytes=offered, on_gpu=tuple(on_gpu), on_cpu=on_cpu)


#: placements of this process, by model, element size and what is free, with the tape whose id it is
_placed: dict[tuple[int, str, int, int, int], tuple[Tape, Placement]] = {}
_models: dict[tuple[int, str, int], tuple[Tape, tuple[Module, ...]]] = {}
_MOST_PLACED, _MOST_MODELS = 4096, 16


def placed_at(pipeline: TorchPipeline, settings: Settings, free_bytes: int) -> Placement:
    """Return where a pipeline's model goes on a GPU with so much free, once a process."""
    tape = tape_at(pipeline, settings, find_tape(pipeline))
    element_bytes = ELEMENT_BYTES[str(settings.get("dtype", "fp32"))]
    percent = offered_percent(settings)
    model = id(tape), pipeline.path, element_bytes
    key = *model, free_bytes, percent
    found = _placed.get(key)
    if found is None:
        if model not in _models:
            _models[model] = tape, modules_of(pipeline, tape, element_bytes)
        _placed[key] = found = tape, place(_models[model][1], free_bytes, percent)
        while len(_models) > _MOST_MODELS:
            del _models[next(iter(_models))]  # the oldest
        while len(_placed) > _MOST_PLACED:
            del _placed[next(iter(_placed))]
    return found[1]


def modules_of(pipeline: TorchPipeline, tape: Tape, element_bytes: int) -> tuple[Module, ...]:
    """Return a model's children as its tape has them, its layers as its config counts them."""
    (weights,) = tape.components.values()
    (spec,) = pipeline.components
    parts = {
        name: _part(name, weights, numbers, element_bytes, _layers_in(spec.config, name))
        for name, numbers in sorted(weights.parts.items(), key=lambda part: part[1])
    }
    head = parts.pop(_HEAD, None)
    inner = Module(
        name="model",
        size_bytes=sum(part.size_bytes for part in parts.values()),
        children=tuple(parts.values()),
    )
    return (inner,) if head is None else (inner, head)


def _layers_in(config: Mapping[str, object], part: str) -> int:
    """Return how many layers a part's config counts; 0 for a part without any."""
    found = config.get(_CONFIGS.get(part, ""), {})
    count = cast("Mapping[str, object]", found).get("num_hidden_layers", 0)
    return count if isinstance(count, int) else 0


def _part(
    name: str, weights: Weights, numbers: Sequence[int], element_bytes: int, count: int
) -> Module:
    """Return a part: what comes before its layers, the layers, and what comes after."""
    tensors = [weights.modules[number] for number in numbers]
    sizes = [sum(weights.tensor_bytes(number, element_bytes)) for number in numbers]
    first, length = _find_layers(tensors, count)
    end = first + count * length
    layers = tuple(
        Module(
            name=f"{name}.layers.{layer}",
            size_bytes=sum(sizes[first + layer * length : first + (layer + 1) * length]),
        )
        for layer in range(count if length else 0)
    )

    def alone(start: int, stop: int) -> tuple[Module, ...]:
        return tuple(
            Module(name=f"{name}.{place}", size_bytes=sizes[place]) for place in range(start, stop)
        )

    if not layers:
        return Module(name=name, size_bytes=sum(sizes), children=alone(0, len(sizes)))
    block = Module(
        name=f"{name}.layers",
        size_bytes=sum(layer.size_bytes for layer in layers),
        children=layers,
    )
    children = (*alone(0, first), block, *alone(end, len(sizes)))
    return Module(name=name, size_bytes=sum(sizes), children=children)


def _find_layers(tensors: Sequence[object], count: int) -> tuple[int, int]:
    """Return where `count` equal runs of modules begin, and how long one is; 0 for none."""
    if count < 2:
        return 0, 0
    for length in range(len(tensors) // count, 0, -1):
        for first in range(len(tensors) - count * length + 1):
            block = tensors[first : first + length]
            if all(
                tensors[first + n * length : first + (n + 1) * length] == block
                for n in range(1, count)
            ):
                return first, length
    return 0, 0
