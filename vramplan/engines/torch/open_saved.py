"""A saved model as a pipeline: with its architecture's tape, or counted where there is none."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from vramplan.catalog.pipelines import Entry
from vramplan.engines.torch.compressed_tensors import is_compressed
from vramplan.engines.torch.counted_model import (
    CountedModel,
    count,
    dtype_of_files,
    quantised_by,
    saved_dtype,
)
from vramplan.engines.torch.packed_weights import loading_remark
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.recorded_model import is_recordable, missing_library
from vramplan.engines.torch.same_model import find_same
from vramplan.engines.torch.sight import LOOKED_AT
from vramplan.engines.torch.weight_settings import add_cache_settings, add_weight_settings
from vramplan.errors import UsageError
from vramplan.model import Constraint, SettingValue
from vramplan.quick_dataclass import replace
from vramplan.settings import check_setting
from vramplan.sources.denoiser_file import from_checkpoint
from vramplan.sources.hub_address import repository_of
from vramplan.sources.saved_model import (
    LocalFiles,
    SavedModel,
    is_part_of_folder,
    is_saved_folder,
    read_saved_file,
    read_saved_folder,
)

#: is told in a line how a TARGET was understood
Remark = Callable[[str], None]

HUB, SUFFIX = "hf:", ".safetensors"
_TORCH_NAMES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}
#: pixels of a side, where a config does not tell: what most pipelines of today make
_SIDE = 1024
#: and of a video: what Wan and its like make, 4n + 1 frames
_VIDEO_SIDES, _FRAMES = (832, 480), 81
_MOST_FRAMES = 2048
#: what a ControlNet has and no denoiser, in diffusers' and in its authors' names
_CONTROL = re.compile(r"^(?:control_model\.|controlnet_|input_hint_block\.|zero_convs\.)")
_LARGEST_SIDE = 1 << 14
#: pipelines that decode another size than they are asked for (the nearest of a table's, or one of
#: as many pixels). Source: diffusers 0.42.1, `use_resolution_binning` in pipelines/{prx,
#: pixart_alpha,sana,sana_video,hunyuandit}, hidream_image and flux/pipeline_flux_kontext.py
_RESIZES = ("PRX", "PixArt", "Sana", "HunyuanDiT", "HiDream", "Kontext")
_MOST_TOKENS = 1 << 20


def find_saved(
    text: str, entries: Iterable[Entry], folders: Sequence[Path], remark: Remark
) -> TorchPipeline | None:
    """Return the pipeline of a saved model: a folder, a file, or ``hf:ORG/NAME``.

    `entries` are the catalogue's, with tapes in `folders`. None for what is no such model. Raises
    SourceError where it is one, and not usable.
    """
    if text.startswith(HUB):
        from vramplan.sources.hub_folder import read_saved_on_hub

        found = read_saved_on_hub(text)
        name = text.rpartition("/")[2].rpartition(":")[2].removesuffix(SUFFIX)
    elif (path := Path(text)).is_dir():
        found = read_saved_folder(LocalFiles(path)) if is_saved_folder(path) else None
        name = repository_of(path) or path.resolve().name
    elif path.suffix.lower() != SUFFIX:
        return None
    elif is_part_of_folder(path):
        found, name = read_saved_folder(LocalFiles(path.parent)), path.resolve().parent.name
    else:
        found, name = read_saved_file(path), path.stem
    if found is None:
        return None
    return _as_pipeline(found, name or "model", entries, folders, remark)


def _as_pipeline(
    model: SavedModel,
    name: str,
    entries: Iterable[Entry],
    folders: Sequence[Path],
    remark: Remark,
) -> TorchPipeline:
    """Return a saved model as a pipeline called `name`, and remark how it was understood."""
    dtype = saved_dtype(model)
    alike = find_same(model, entries, folders, name)
    if alike:
        same, *others = alike
        own = {spec.name: spec.dtype for spec in same.components if spec.dtype}
        beside = "".join(f", its {part} in {told}" for part, told in own.items())
        names = ", ".join(other.name for other in others)
        called = f" (or {names}: name that instead)" if others else ""
        remark(
            f"{model.place}: the architecture of the catalogue's {same.name}{called}, "
            f"{_loaded(model)}{beside}"
        )
        model = _with_own_dtypes(model, own)
        is_counted = same.counted is not None  # where its tape does not hold
        return replace(
            same,
            name=name,
            title=f"{name}, of the architecture of {same.title}",
            defaults=_own_defaults(model, same, dtype),
            constraints=_in_any_dtype(same) if is_counted else same.constraints,
            has_own_defaults=True,
            source=model.place,
            path=model.place,
            aliases=(),
            counted=count(model) if is_counted else None,
            saved=model if is_counted else None,
        )
    file = from_checkpoint(model)
    if file is not None:
        from vramplan.engines.torch.open_denoiser import open_denoiser

        of = open_denoiser(file, entries, folders, remark)
        if of is not None:
            return of
    _say_that_there_is_no_tape(model, remark)
    return _counted_pipeline(model, name, dtype, entries, folders)


def _say_that_there_is_no_tape(model: SavedModel, remark: Remark) -> None:
    what = model.class_name or "this model"
    rest = (
        f"it is recorded here by its own code, {_loaded(model)}"
        if is_recordable(model) and missing_library() is None
        else f"its weights are counted, {_loaded(model)}; the rest is assumed, in a wide band"
    )
    remark(f"{model.place}: there is no tape of {what}: {rest}")
    if _is_controlnet(model):
        remark(
            f"{model.place}: a ControlNet runs beside a pipeline: "
            f"'sdxl[controlnet={model.place}]' plans both, where it is SDXL's"
        )


def _counted_pipeline(
    model: SavedModel,
    name: str,
    dtype: str,
    entries: Iterable[Entry],
    folders: Sequence[Path],
) -> TorchPipeline:
    """Return a saved model without a tape, with the settings that it has then."""
    counted = _with_decoders_tape(count(model), model, entries, folders)
    defaults: dict[str, SettingValue] = {"batch": 1, "dtype": dtype}
    constraints = {"batch": Constraint(maximum=1024)}
    if counted.decoder is not None:
        defaults["image"] = (_SIDE, _SIDE)
        constraints["image"] = Constraint(minimum=16, maximum=_LARGEST_SIDE)
        # some pipelines of images have a decoder of video, for one frame (Qwen-Image)
        if counted.decoder.is_video and "Image" not in model.class_name.replace("ImageTo", ""):
            defaults |= {"image": _VIDEO_SIDES, "frames": _FRAMES}
            constraints["frames"] = Constraint(maximum=_MOST_FRAMES)
    if counted.language is not None:
        defaults |= {"prompt_tokens": 512, "new_tokens": 256}
        for key in ("prompt_tokens", "new_tokens"):
            constraints[key] = Constraint(maximum=_MOST_TOKENS)
        sight = counted.language.sight
        if sight is not None and sight.looks_apart:  # others make every image their own size
            defaults["image"] = LOOKED_AT
            constraints["image"] = Constraint(minimum=16, maximum=_LARGEST_SIDE)
    if len(counted.parts) > 1:
        defaults["offload"] = "none"
        constraints["offload"] = Constraint(choices=("none", "model"))
    pipeline = TorchPipeline(
        name=name,
        title=f"{name} ({model.class_name})" if model.class_name else name,
        summary="A saved model whose architecture has no tape.",
        runtime=model.runtime,
        defaults={**defaults, "platform": "linux"},
        constraints=constraints,
        source=model.place,
        path=model.place,
        counted=counted,
        saved=model,
    )
    if counted.language is not None:
        (part,) = model.parts
        pipeline = add_cache_settings(pipeline, part.class_path, model.config)
    is_packed = any(is_compressed(part) for part in model.parts)
    if is_packed or any(part.quantised for part in counted.parts):  # its weights are what they are
        return pipeline
    return add_weight_settings(pipeline, {part.name: part.class_path for part in model.parts})


def _is_controlnet(model: SavedModel) -> bool:
    """Return whether a model is a ControlNet alone: by its class, or its tensors' names."""
    if model.class_name:
        return "ControlNet" in model.class_name and model.kind == "model"
    return any(_CONTROL.search(one.name) for part in model.parts for one in part.tensors)


def _with_own_dtypes(model: SavedModel, own: Mapping[str, str]) -> SavedModel:
    """Return a model whose parts are loaded as those of the catalogue's entry are."""
    parts = tuple(replace(part, dtype=own.get(part.name)) for part in model.parts)
    return replace(model, parts=parts) if own else model


def _with_decoders_tape(
    counted: CountedModel, model: SavedModel, entries: Iterable[Entry], folders: Sequence[Path]
) -> CountedModel:
    """Return what is counted with the tape of its decoder, where the catalogue has it alone."""
    decoder = counted.decoder
    if decoder is None or any(word in model.class_name for word in _RESIZES):
        return counted
    (part,) = (one for one in model.parts if one.name == decoder.part)
    lone = replace(model, kind="model", parts=(part,), config=part.config)
    autoencoders = (one for one in entries if "mode" in one.defaults and "image" in one.defaults)
    found = find_same(lone, autoencoders, folders)
    if not found:
        return counted
    same = found[0]
    return replace(counted, decoder=replace(decoder, tape=same.tape or same.tape_within))


def _loaded(model: SavedModel) -> str:
    """Return in which dtype it is taken to be loaded, and what has to be typed for that."""
    dtype = saved_dtype(model)
    of_files = dtype_of_files(model)
    words = f"in {dtype}, as its files are"
    if dtype != of_files:
        words = f"in {dtype}, as its config says (its files are in {of_files})"
    quantised = quantised_by(model)
    if quantised is not None:
        words = f"those quantised as they are in its files ({quantised}), the others in {dtype}"
        told = dict.fromkeys(filter(None, map(loading_remark, model.parts)))
        words = "; ".join((words, *told))
    if any(is_compressed(part) for part in model.parts):
        words = f"in {dtype}, since the first call unpacks what compressed-tensors packed"
    if model.runtime == "diffusers" and dtype != "fp32":
        return f"{words} (load it with torch_dtype=torch.{_TORCH_NAMES[dtype]})"
    return words


def _own_defaults(model: SavedModel, same: TorchPipeline, dtype: str) -> Mapping[str, SettingValue]:
    """Return the catalogue's settings with what the model's own files say."""
    parts = {part.name: part for part in model.parts}
    wanted: dict[str, SettingValue] = {"dtype": dtype}
    if "safety_checker" not in parts:
        wanted["safety_checker"] = "off"
    if "vae" in parts and parts["vae"].config.get("force_upcast") is False:
        wanted["vae_upcast"] = "off"
    side = parts["unet"].config.get("sample_size") if "unet" in parts else None
    if isinstance(side, int) and not isinstance(side, bool) and 0 < side <= _LARGEST_SIDE:
        wanted["image"] = (8 * side, 8 * side)
    kept = {key: value for key, value in wanted.items() if _is_taken(same, key, value)}
    if same.counted is not None:
        kept["dtype"] = dtype
    return {**same.defaults, **kept}


def _in_any_dtype(same: TorchPipeline) -> Mapping[str, Constraint]:
    """Return an entry's constraints where nobody has to have recorded a dtype: it is counted."""
    return {**same.constraints, "dtype": Constraint(choices=tuple(_TORCH_NAMES))}


def _is_taken(pipeline: TorchPipeline, key: str, value: SettingValue) -> bool:
    if key not in pipeline.defaults:
        return False
    try:
        check_setting(pipeline, key, value)
    except UsageError:
        return False
    return True
