"""Models as diffusers and transformers save them, without their data: headers, and a hole behind.

The tensors have the sizes that a catalogued pipeline's tape tells; their names are invented, except
where a test is about names.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vramplan.ask.targets import open_catalog
from vramplan.catalog.pipelines import Entry
from vramplan.engines.torch.tape.format import read_tape

BITS = {"F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "U32": 32, "I8": 8, "U8": 8}
BITS |= {"F8_E4M3": 8}
Described = tuple[str, str, Sequence[int]]  # name, type, shape


def entry(name: str) -> Entry:
    return open_catalog().pipelines[name]


def sizes(name: str, *, in_fp32: bool = False) -> dict[str, list[int]]:
    """Return the elements of each tensor of each component of a catalogued pipeline.

    With `in_fp32` those too that it has in fp32 where the rest is not.
    """
    catalog = open_catalog()
    told = catalog.pipelines[name].text("tape")
    file = f"{told}.json" if told else f"{name}.json.gz"
    tape = read_tape(catalog.folders[-1] / "tapes" / file)
    return {
        component: [
            size if isinstance(size, int) else int(size[:-1]) // 4
            for module in held.modules
            for size in module
            if in_fp32 or isinstance(size, int)
        ]
        for component, held in tape.components.items()
    }


def header(tensors: Iterable[Described]) -> tuple[bytes, int]:
    """Return a header with its length before it, and the length of what it says is behind it."""
    said: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, dtype, shape in tensors:
        count = 1
        for side in shape:
            count *= side
        end = at + count * BITS[dtype] // 8
        said[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(said).encode()
    return struct.pack("<Q", len(text)) + text, at


def write(path: Path, tensors: Iterable[Described]) -> Path:
    """Write a file of tensors whose data is a hole."""
    start, rest = header(tensors)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(start)
        file.truncate(len(start) + rest)
    return path


def tensors_of(counts: Iterable[int], dtype: str = "F16", before: str = "") -> list[Described]:
    return [(f"{before}t{number}", dtype, (count,)) for number, count in enumerate(counts)]


def save(
    folder: Path,
    name: str,
    dtype: str = "F16",
    *,
    without: Sequence[str] = (),
    in_fp32: bool = False,
    **configs: dict,
) -> Path:
    """Save a folder that is of a catalogued pipeline's architecture; `configs` are components'."""
    classes = {spec.name: spec.class_path.split(".") for spec in entry(name).components()}
    known = sizes(name, in_fp32=in_fp32)
    if len(classes) == 1:
        ((component, (library, class_name)),) = classes.items()
        is_of_diffusers = library == "diffusers"
        said: Mapping[str, object] = (
            {"_class_name": class_name, "_diffusers_version": "0.42.1"}
            if is_of_diffusers
            else {"architectures": [class_name]}
        )
        config = {**said, **configs.get(component, {})}
        stem = "diffusion_pytorch_model" if is_of_diffusers else "model"
        write(folder / f"{stem}.safetensors", tensors_of(known[component], dtype))
        (folder / "config.json").write_text(json.dumps(config))
        return folder
    class_path = entry(name).text("class") or "diffusers.StableDiffusionPipeline"
    index: dict[str, object] = {"_class_name": class_path.partition(".")[2]}
    for component, (library, class_name) in classes.items():
        if component in without:
            index[component] = [None, None]
            continue
        index[component] = [library, class_name]
        write(folder / component / "model.safetensors", tensors_of(known[component], dtype))
        config = configs.get(component, {})
        (folder / component / "config.json").write_text(json.dumps(config))
    index["scheduler"] = ["diffusers", "PNDMScheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


#: where Stability AI's layout keeps a component
LAYOUT = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text_encoder": "cond_stage_model.transformer.",
}
LAYOUT_XL = {
    **LAYOUT,
    "text_encoder": "conditioner.embedders.0.transformer.",
    "text_encoder_2": "conditioner.embedders.1.model.",
}


def save_checkpoint(path: Path, name: str, layout: Mapping[str, str] = LAYOUT) -> Path:
    """Save a single file of a pipeline's architecture, as people share fine-tunes."""
    found: list[Described] = [
        ("betas", "F32", (1000,)),
        ("model_ema.decay", "F32", ()),
    ]
    for component, counts in sizes(name).items():
        if component not in layout:
            continue
        before, left = layout[component], list(counts)
        if component == "text_encoder_2":  # OpenCLIP's: queries, keys and values in one
            wide = 1280
            for layer in range(32):
                for count in (wide * wide,) * 3 + (wide,) * 3:
                    left.remove(count)
                stem = f"{before}transformer.resblocks.{layer}.attn.in_proj_"
                found.append((f"{stem}weight", "F16", (3 * wide, wide)))
                found.append((f"{stem}bias", "F16", (3 * wide,)))
            found.append((f"{before}logit_scale", "F32", ()))
        found += tensors_of(left, "F16", before)
    found.append((f"{LAYOUT['text_encoder']}position_ids", "I64", (1, 77)))
    return write(path, found)
