"""A diffusers pipeline of any class: its parts put together, and called by its arguments' names."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Self

import torch

from vramplan.engines.torch.record.classes import find_class
from vramplan.engines.torch.record.saved.calls import Calls
from vramplan.engines.torch.record.saved.casts import watch_casts
from vramplan.engines.torch.record.saved.constant_tape import STEPS
from vramplan.engines.torch.record.saved.request import Request
from vramplan.engines.torch.record.saved.stand_ins import stand_in
from vramplan.engines.torch.record.saved.wrapped import WrappedDevice
from vramplan.errors import RecordingError

Value = Any

_PROMPT = "a photograph of a lighthouse at dusk, waves below, detailed, warm light"


def put_together(request: Request, modules: Mapping[str, torch.nn.Module]) -> Value:
    """Return the pipeline with what it has beside its modules: schedulers, stand-ins.

    Raises RecordingError where something it needs is not to be had.
    """
    import diffusers

    cls = find_class(request.class_path)
    if not issubclass(cls, diffusers.DiffusionPipeline):
        raise RecordingError(f"{request.class_path} is no pipeline")
    wanted = inspect.signature(cls.__init__).parameters
    _stand_in_for_ftfy(cls)
    parts: dict[str, Value] = {}
    for name, parameter in wanted.items():
        if name == "self":
            continue
        if name in modules:
            parts[name] = modules[name]
        elif name in request.values:
            parts[name] = request.values[name]
        elif name in request.index:
            parts[name] = _part(name, request)
        elif _is_guider(parameter.annotation):
            parts[name] = parameter.annotation()
        elif (told := _told_by_type(parameter)) is not None:
            parts[name] = stand_in(told, _image_tokens(request))
        elif parameter.default is inspect.Parameter.empty:
            raise RecordingError(f"{request.class_path} needs a {name}, which is not there")
    unused = modules.keys() - parts.keys()
    if unused:
        raise RecordingError(f"{request.class_path} has no {', '.join(sorted(unused))}")
    pipe = cls(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _stand_in_for_ftfy(cls: type) -> None:
    """Let prompts stay as they are where ftfy, which mends their letters, is not installed.

    Wan's pipelines from an image want it without asking whether it is there (diffusers 0.42.1).
    """
    vars(sys.modules[cls.__module__]).setdefault("ftfy", SimpleNamespace(fix_text=str))


def _told_by_type(parameter: inspect.Parameter) -> str | None:
    """Return the class of transformers that a pipeline needs here, where its signature says it."""
    kind = parameter.annotation
    if parameter.default is not inspect.Parameter.empty or not isinstance(kind, type):
        return None
    is_known = kind.__module__.startswith("transformers.") and kind.__name__.endswith(
        ("Tokenizer", "TokenizerFast", "Processor", "ImageProcessorPil", "FeatureExtractor")
    )
    return f"transformers.{kind.__name__}" if is_known else None


def _is_guider(kind: object) -> bool:
    """Return whether a class is one of diffusers' guiders: guidance as a part, without weights.

    Its settings, a pipeline's defaults for it, decide no size; that it guides does.
    """
    return isinstance(kind, type) and kind.__module__.startswith("diffusers.guiders.")


def _part(name: str, request: Request) -> Value:
    """Return what the index says of a part that has no weights."""
    said = request.index[name]
    if said is None or isinstance(said, (bool, int, float, str)):
        return said
    if not (isinstance(said, Sequence) and len(said) == 2) or None in said:
        return None
    library, class_name = map(str, said)
    if library not in ("diffusers", "transformers"):
        return None  # the safety checker's module: pipelines run without it
    if library == "diffusers":
        cls = find_class(f"diffusers.{class_name}")
        if _is_guider(cls):
            return cls()
        if not class_name.endswith("Scheduler"):
            raise RecordingError(f"{name}: {class_name} has no weights here")
        return cls.from_config(dict(request.schedulers.get(name, {})))
    return stand_in(f"transformers.{class_name}", _image_tokens(request))


def _image_tokens(request: Request) -> dict[str, int]:
    return {
        key: value
        for part in request.parts
        for key, value in part.config.items()
        if key.endswith("_token_id") and type(value) is int
    }


# ------------------------------------------------------------------------------ running
def run_pipeline(
    request: Request, pipe: Value, device: WrappedDevice
) -> tuple[Calls, dict[str, int]]:
    """Call a pipeline; return its components' calls, and how often each of its loops ran."""
    watched = watch_pipeline(pipe, device)
    if request.frames:
        _make_no_pictures(pipe)
    result = pipe(**arguments(request, pipe))
    del result
    return watched.calls, watched.counts()


def _make_no_pictures(pipe: Value) -> None:
    """Let a video stay an array on the host: gigabytes of zeros would be scaled frame by frame."""
    from diffusers.image_processor import VaeImageProcessor
    from PIL import Image

    picture = Image.new("RGB", (1, 1))
    for part in vars(pipe).values():
        if isinstance(part, VaeImageProcessor):
            part.__dict__["numpy_to_pil"] = lambda frames: [picture] * len(frames)


def watch_pipeline(pipe: Value, device: WrappedDevice) -> Watched:
    """Let a pipeline tell `device` its phases, loops and the calls of its components."""
    return Watched(pipe, device)


class Watched:
    """A pipeline that tells what it does, in one run after the other."""

    def __init__(self, pipe: Value, device: WrappedDevice) -> None:
        self._device = device
        self._bars: list[_Bar] = []
        self._phases = _Phases(device)
        modules = {n: m for n, m in pipe.components.items() if isinstance(m, torch.nn.Module)}
        self.calls = Calls(device, modules, self._began)
        if isinstance(device, WrappedDevice):  # torch itself casts on a real one, and says so
            watch_casts(device, modules)
        pipe.progress_bar = self._progress_bar

    def begin(self) -> None:
        """Begin another run."""
        self._phases = _Phases(self._device)
        self._bars.clear()

    def counts(self) -> dict[str, int]:
        """Return how often each loop ran."""
        return {bar.name: bar.count for bar in self._bars if bar.count}

    def _began(self, label: str) -> None:
        self._phases.began(label)

    def _progress_bar(
        self, iterable: Value = None, total: int | None = None, **_: Value
    ) -> _Bar:  # what else it takes is how it looks
        name = f"{STEPS}{len(self._bars) + 1}"
        self._bars.append(_Bar(self._device, self._phases, name, iterable, total))
        return self._bars[-1]


class _Phases:
    """Which phase a component's work is, by its place: before, in or after the denoising loop."""

    def __init__(self, device: WrappedDevice) -> None:
        self._device = device
        self._phase = ""
        self.bars = 0
        self.is_looping = False

    def began(self, label: str) -> None:
        """Hear that a component begins to work."""
        if self.is_looping:
            self.begin("denoise")
        elif "text" in label:
            self.begin("encode_prompt")
        elif label.endswith(".encoder") or label.startswith("image_"):
            self.begin("encode_image")
        elif label.endswith(".decoder") or self.bars:
            self.begin("decode_image")
        else:
            self.begin("encode_prompt")

    def begin(self, phase: str) -> None:
        """Write a phase down where it is another than before."""
        if phase != self._phase:
            self._phase = phase
            self._device.begin_phase(phase)


class _Bar:
    """The progress bar of a denoising loop: what advances it begins the next iteration."""

    def __init__(
        self, device: WrappedDevice, phases: _Phases, name: str, iterable: Value, total: int | None
    ) -> None:
        self._device, self._phases = device, phases
        self.name = name
        self._iterable = iterable
        self._total = total if total is not None else _length(iterable)
        self._done = self.count = 0
        self._is_open = False

    def __enter__(self) -> Self:
        self._next()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def __iter__(self) -> Iterator[Value]:
        for value in self._iterable:
            self._next()
            yield value
        self._end()

    def update(self, steps: int = 1) -> None:
        """Hear that a step is done."""
        self._done += steps
        if self._total is None or self._done < self._total:
            self._next()
        else:
            self._end()

    def set_postfix(self, *_: Value, **__: Value) -> None:
        """Show nothing."""

    set_description = set_postfix

    def close(self) -> None:
        """Hear that the loop is over."""
        self._end()

    def _next(self) -> None:
        self._phases.is_looping, self._is_open = True, True
        self._phases.bars += 1
        self._phases.begin("denoise")
        self._device.iterate(self.name)
        self.count += 1

    def _end(self) -> None:
        if self._is_open:
            self._is_open = self._phases.is_looping = False
            self._device.end_loop()


def _length(iterable: Value) -> int | None:
    return len(iterable) if hasattr(iterable, "__len__") else None


# ---------------------------------------------------------------------------- arguments
def arguments(request: Request, pipe: Value) -> dict[str, Value]:
    """Return what a pipeline is called with: what was asked for, by its arguments' names.

    Raises RecordingError for an argument that it needs and nobody knows.
    """
    from PIL import Image

    wanted = inspect.signature(pipe.__call__).parameters
    width, height = request.image or (None, None)
    is_apart = request.picture is not None and {"width", "height"} <= wanted.keys()
    sides = request.picture if is_apart else request.image
    picture = Image.new("RGB", sides or (512, 512))
    mask = Image.new("L", picture.size, 255)
    frames = request.frames or 1
    known: dict[str, Value] = {
        "prompt": [_PROMPT] * request.batch,
        "height": height,
        "width": width,
        "num_frames": request.frames,
        "num_inference_steps": steps_of(wanted, request.steps),
        **_guidance(wanted, request),
        "video": [picture] * frames,
        "mask_image": mask,
        "control_mode": _control_mode(pipe),
    }
    given = {name: known[name] for name in known if name in wanted and known[name] is not None}
    if "intermediate_timesteps" in wanted:  # of two steps alone; others are without
        given["intermediate_timesteps"] = None
    if (
        "video" in given
        and wanted["video"].default is not inspect.Parameter.empty
        and "image" in wanted
    ):
        del given["video"]
    for name, parameter in wanted.items():
        if name in given or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if name in ("image", "control_image", "init_image", "ip_adapter_image", "reference_image"):
            # a mask is of an image, though its class may be called by what it does with them
            is_needed = name != "ip_adapter_image" and (
                "mask_image" in wanted or not _is_from_text(pipe)
            )
            if parameter.default is inspect.Parameter.empty or is_needed:
                given[name] = picture
        elif name == "negative_prompt" and _guides_truly(wanted, request):
            given[name] = [""] * request.batch
        elif parameter.default is inspect.Parameter.empty:
            raise RecordingError(f"{type(pipe).__name__} wants {name}, which nobody knows here")
    if "prompt" not in wanted and request.batch > 1:
        if "batch_size" in wanted:
            given["batch_size"] = request.batch
        elif given.get("image") is picture:
            given["image"] = [picture] * request.batch
        else:
            raise RecordingError(f"{type(pipe).__name__} is not known to take a batch")
    return given


def _control_mode(pipe: Value) -> int | None:
    """Return a kind of image for a ControlNet that is told which; each takes as much."""
    return 0 if getattr(getattr(pipe, "controlnet", None), "union", False) is True else None


def steps_of(
    wanted: Mapping[str, inspect.Parameter], steps: int, strength: float | None = None
) -> int:
    """Return how many steps a pipeline is told, so that it takes any.

    One that begins with an image takes the part of them that its strength says, by default a fifth
    here and there.
    """
    if strength is None and "strength" in wanted:
        strength = wanted["strength"].default
    if isinstance(strength, (int, float)) and strength > 0 and not int(steps * strength):
        return math.ceil(steps / strength)
    return steps


def _guidance(
    wanted: Mapping[str, inspect.Parameter], request: Request
) -> Mapping[str, float | None]:
    """Return by which argument a pipeline is told how strongly to follow its prompt."""
    true = wanted.get("true_cfg_scale")
    guides_truly = true is not None and isinstance(true.default, (int, float)) and true.default > 1
    return {"true_cfg_scale" if guides_truly else "guidance_scale": request.guidance}


def _is_from_text(pipe: Value) -> bool:
    """Return whether a pipeline that takes images makes them without one too."""
    name = type(pipe).__name__
    return not any(
        word in name
        for word in ("Img2Img", "Image2Image", "Inpaint", "Control", "ImageToVideo", "Edit", "I2V")
    )


def _guides_truly(wanted: Mapping[str, inspect.Parameter], request: Request) -> bool:
    """Return whether a pipeline guides by a negative prompt when, and only when, it has one."""
    scale = wanted.get("true_cfg_scale")
    if scale is None:
        return False
    default = scale.default if isinstance(scale.default, (int, float)) else 1
    return (default if request.guidance is None else request.guidance) > 1
