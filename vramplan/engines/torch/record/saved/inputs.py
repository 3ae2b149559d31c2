"""What a model is given: of each source of inputs in turn, what none before it gave."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from vramplan.engines.torch.record.saved import image_inputs, named_inputs, sound_inputs
from vramplan.engines.torch.record.saved.asked_model import (
    AskedModel,
    Inputs,
    Tensors,
    Value,
    generates,
    uploaded,
)
from vramplan.engines.torch.record.saved.request import Request
from vramplan.engines.torch.record.saved.wrapped import WrappedDevice
from vramplan.errors import RecordingError
from vramplan.quick_dataclass import replace

Source = Callable[[AskedModel, WrappedDevice, frozenset[str]], Tensors]


def _sound(asked: AskedModel, device: WrappedDevice, _: frozenset[str]) -> Tensors:
    return sound_inputs.in_a_prompt(asked, device)


#: what gives inputs, the one that knows most of a model first: it says what it can give beside what
#: is given already
_SOURCES: tuple[Source, ...] = (
    lambda asked, device, _: image_inputs.in_a_prompt(asked, device),
    _sound,
    lambda asked, _, given: named_inputs.by_name(asked, given),
)


def inputs(request: Request, model: Value, device: WrappedDevice, form: int = 0) -> Inputs:
    """Return what a model is given, on the device.

    Raises RecordingError for what nobody knows, or what the class's own code does where it takes no
    image.
    """
    asked = ask(request, model, form)
    given: Tensors = {}
    sources = _SOURCES
    if form >= named_inputs.count_forms(asked):  # no form of a sound was taken
        asked = replace(asked, form=0)
        sources = tuple(one for one in _SOURCES if one is not _sound)
    for source in sources:
        made = source(asked, device, frozenset(given))
        given |= {name: made[name] for name in made.keys() - given.keys()}
    lacks = sorted(({asked.main} if asked.generates else asked.required) - given.keys())
    if lacks or not given:
        what = ", ".join(lacks) or asked.main
        raise RecordingError(f"{request.class_path} is given {what}, which nobody knows here")
    return uploaded(given, model)


def count_forms(request: Request, model: Value) -> int:
    """Return how many forms a model's inputs may have, of which its own code takes one.

    The last of a model that hears with a prompt is the prompt alone.
    """
    asked = ask(request, model)
    return named_inputs.count_forms(asked) + sound_inputs.is_taken(asked)


def ask(request: Request, model: Value, form: int = 0) -> AskedModel:
    """Return a model with what its class says that it takes."""
    main: Value = getattr(model, "main_input_name", "input_ids")
    if isinstance(main, (list, tuple)) and main:
        main = main[0]  # the others are told by their names
    names = inspect.signature(model.forward).parameters
    # what its base class said is not always what it takes, or is any input
    if main not in names or main == "inputs":
        main = next((one for one in named_inputs.MAIN if one in names), main)
    is_generation = generates(model)
    if main == "pixel_values" and "input_ids" in names and is_generation:
        main = "input_ids"  # a prompt goes with the image
    return AskedModel(
        request=request,
        model=model,
        names=names,
        main=str(main),
        generates=is_generation,
        form=form,
    )
