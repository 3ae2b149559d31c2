"""Which convolutions the catalogue's pipelines run, at which sizes: from their tapes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vramplan.ask.targets import make_jobs
from vramplan.catalog import load_catalog
from vramplan.engines.torch.estimate import settled
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.replayed import conditions_at
from vramplan.engines.torch.tape.convolution import read_kind
from vramplan.engines.torch.tape.rehearse import rehearse
from vramplan.engines.torch.tape_files import find_tape, open_tape
from vramplan.settings import parse_setting

#: a layer's kind, its batch and the sides of its input
Case = tuple[str, int, tuple[int, ...]]
Settings = Mapping[str, str]

_DIFFUSION = [
    *({"image": f"{side}x{side}", "batch": str(n)} for side in (256, 512, 768, 1024)
      for n in (1, 2)),
    {"image": "512x512", "batch": "4"}, {"image": "768x512"}, {"image": "2048x2048"},
]  # fmt: skip
_UNET = [
    {"image": "512x512"}, {"image": "512x512", "batch": "2"}, {"image": "768x768"},
    {"image": "1024x1024"}, {"image": "1024x1024", "batch": "2"},
]  # fmt: skip
_TILED = [{"image": "1024x1024", "vae_tiling": "on"}, {"image": "1536x1152", "vae_tiling": "on"}]
#: at powers of two alone, different sums are equal
_UNEVEN = [
    {"image": image, "batch": batch} for image, batch in (
        ("416x352", "1"), ("480x416", "2"), ("608x480", "1"), ("672x544", "2"), ("864x672", "1"),
        ("736x672", "3"), ("992x800", "2"), ("352x288", "4"),
    )
]  # fmt: skip
_BATCHES = [{"batch": str(n)} for n in (1, 4, 8, 16, 32, 64)]
#: modes and sizes that are crossed, by pipeline
_SIZES: Mapping[str, Sequence[tuple[Sequence[Settings], Sequence[Settings]]]] = {
    "sd15-vae": [([{"mode": "both"}], [*_DIFFUSION, *_TILED])],
    "denoising-ae": [
        (
            [{"mode": "infer"}, {"mode": "train", "steps": "2"}],
            [
                {"image": f"{side}x{side}", **batch}
                for side in (128, 256, 512)
                for batch in _BATCHES
            ],
        ),
        ([{"mode": "train", "steps": "2"}], _UNEVEN),
    ],
    "vit-mae-base": [([{"mode": "infer"}, {"mode": "train", "steps": "2"}], _BATCHES)],
    "llava-1.5-7b-hf": [([{"new_tokens": "4"}], _BATCHES[:2])],
    "sd15": [([{"mode": "txt2img"}], _UNET)],
    "sdxl": [([{}], [*_UNET, {"image": "1152x896"}])],
}
_FEW = [
    *({"image": image, "batch": "1"} for image in ("448x448", "512x512", "768x512", "1024x1024")),
    {"image": "512x512", "batch": "2"}, {"image": "512x448", "batch": "3"},
]  # fmt: skip
_IMAGES = [{"batch": n} for n in ("1", "3", "4", "8", "12", "16", "24", "32", "48", "64")]
#: layers of which another plan comes first at every other size: they are asked about at more
_RESTLESS = frozenset(
    f"conv {layer}" for layer in (
        "3>128 3x3 p1", "128>3 3x3 p1", "128>256 1x1", "256>512 1x1", "256>128 1x1", "512>256 1x1",
        "128>128 3x3 s2", "256>256 3x3 s2", "512>512 3x3 s2", "512>32 3x3 p1", "3>96 3x3x3",
    )
)  # fmt: skip
_BETWEEN: Mapping[str, Sequence[Settings]] = {
    "sd3-vae": [
        {"image": image, "batch": batch} for image, batch in (
            ("320x512", "1"), ("640x384", "4"), ("896x640", "2"), ("448x832", "3"),
            ("256x960", "1"),
        )
    ],
    "qwen-image-vae": [
        {"image": image, "batch": batch} for image, batch in (
            ("320x512", "2"), ("640x384", "4"), ("896x640", "1"), ("448x832", "2"),
        )
    ],
}  # fmt: skip
#: of several images a decoder's layers behind its attention have their channels innermost: those
#: alone are asked about at these sizes
_SEVERAL = [
    *({"image": image, "batch": str(n)} for n in (2, 3, 4) for image in (
        "256x256", "320x320", "384x384", "512x512", "640x640", "768x512", "768x768", "896x896",
        "1024x1024",
    )),
    {"image": "256x256", "batch": "8"}, {"image": "512x512", "batch": "8"},
    {"image": "1280x1280", "batch": "2"}, {"image": "1536x1536", "batch": "2"},
]  # fmt: skip

_WHISPER = [{"new_tokens": "8", "batch": n} for n in ("1", "4", "12", "32")]
_LARGE = [{"image": image} for image in ("512x512", "768x512", "1024x1024", "1152x896")]
_SDXL = [*_FEW, *_LARGE[3:]]
_USUAL: list[Settings] = [{}]
_PATCHES = [{}, {"image": "448x448"}, {"image": "672x896"}]
#: the entries that no recipe knows, whose layers are asked about where no other has them
_OTHERS: Mapping[str, Sequence[Settings]] = {
    **dict.fromkeys(("taesd", "taef1", "sd3-vae", "flux1-vae", "flux2-vae"), _FEW),
    **dict.fromkeys(("qwen-image-vae", "dc-ae-f32c32-sana"), _FEW),
    **dict.fromkeys(("sd15-inpaint", "kandinsky-movq", "sd2.1"), _FEW),
    "sd3.5-medium": _FEW[1:],
    "whisper-tiny": _WHISPER,
    **dict.fromkeys(("dinov2-small", "dinov2-base", "dinov2-large", "dinov2-giant"), _IMAGES),
    **dict.fromkeys(("siglip-base", "siglip-so400m", "clip-vit-l-14", "clip-vit-h-14"), _IMAGES),
    **dict.fromkeys(("whisper-base", "whisper-small", "whisper-medium"), _WHISPER),
    **dict.fromkeys(("whisper-large-v3", "whisper-large-v3-turbo"), _WHISPER),
    **dict.fromkeys(("florence-2-base", "florence-2-large"), _IMAGES[:3]),
    "blip2-opt-2.7b": _IMAGES[:3],
    **dict.fromkeys(("qwen2-vl-2b", "qwen2-vl-7b", "qwen3-vl-2b"), _PATCHES),
    **dict.fromkeys(("qwen3-vl-4b", "qwen3-vl-8b"), _PATCHES),
    **dict.fromkeys(("sdxl-refiner", "sdxl-controlnet", "sd15-controlnet"), _SDXL),
    "sd3.5-large": _LARGE,
    "stable-audio-open": [{}, {"batch": "2"}],
    "hidream-i1": _USUAL,
    **dict.fromkeys(("sana-0.6b", "sana-1.6b", "sana-sprint-1.6b"), _USUAL),
    **dict.fromkeys(("pixart-alpha", "pixart-sigma", "hunyuan-dit"), _USUAL),
    **dict.fromkeys(("qwen-image-edit", "qwen-image-edit-plus"), _USUAL),
    **dict.fromkeys(("qwen2.5-vl-3b", "qwen2.5-vl-7b"), _USUAL),
}
_FRAMES = [{"image": image} for image in ("832x480", "1024x576", "480x832", "512x512", "704x544")]
_WAN = [*_FRAMES, {"image": "320x256", "frames": "33"}]
_CHUNKS = [*_WAN, {"image": "480x416", "batch": "2"}]
_CLIPS = [{}, {"image": "512x320"}, {"image": "768x512"}, {"image": "1024x576"}]
#: videos: what their layers share with those of images is asked about at their sizes, too
_VIDEOS: Mapping[str, Sequence[Settings]] = {
    **dict.fromkeys(("wan-vae", "wan2.2-vae"), _CHUNKS),
    "cogvideox-vae": [{}, {"image": "480x320"}, {"image": "608x416"}],
    **dict.fromkeys(("wan2.1-t2v-1.3b", "wan2.1-t2v-14b", "wan2.1-i2v-14b"), _WAN),
    **dict.fromkeys(("wan2.2-t2v-a14b", "wan2.2-i2v-a14b"), _WAN),
    "wan2.2-ti2v-5b": [{}, *_WAN],
    **dict.fromkeys(("ltx-video-vae", "ltx-video-0.9", "ltx-video-0.9.7", "ltx-2"), _CLIPS),
    **dict.fromkeys(("cogvideox-2b", "cogvideox-5b", "mochi-1"), _USUAL),
    "hunyuanvideo": [{}, {"image": "1280x720"}, *_FRAMES[:3]],
    "animatediff": [{}, {"image": "512x320"}, {"frames": "8"}],
    "svd-xt": [{}, {"image": "768x512"}],
}


def catalogue_cases() -> set[Case]:
    """Return every convolution of the catalogue's tapes at the sizes that rules are made from."""
    found = {
        case
        for name, crossed in _SIZES.items()
        for modes, sizes in crossed
        for mode in modes
        for size in sizes
        for case in cases_of(name, {**mode, **size})
    }
    found |= channels_last_cases()
    found |= {
        case
        for name, sizes in _BETWEEN.items()
        for size in sizes
        for case in cases_of(name, size)
        if case[0] in _RESTLESS
    }
    found |= {
        case for name, sizes in _VIDEOS.items() for size in sizes for case in cases_of(name, size)
    }
    kinds = {kind for kind, _, _ in found}
    return found | {case for case in other_cases() if case[0] not in kinds}


def other_cases() -> set[Case]:
    """Return the convolutions of entries that no recipe knows."""
    return {
        case for name, sizes in _OTHERS.items() for size in sizes for case in cases_of(name, size)
    }


def channels_last_cases() -> set[Case]:
    """Return the convolutions of several images whose channels are innermost."""
    return {
        case
        for size in _SEVERAL
        for case in cases_of("sd15-vae", {"mode": "decode", **size})
        if (layer := read_kind(case[0])) is not None and layer.is_channels_last
    }


def cases_of(name: str, settings: Mapping[str, str]) -> Iterator[Case]:
    """Yield the convolutions of a pipeline at some settings."""
    given = {key: parse_setting(key, text) for key, text in settings.items()}
    (job,) = make_jobs([name], load_catalog(()), {**_fewest(name), **given})
    seen: set[tuple[str, tuple[int, ...]]] = set()

    def note(kind: str, operands: tuple[int, ...]) -> int:
        seen.add((kind, operands[3:]))
        return 0

    assert isinstance(job.pipeline, TorchPipeline)
    pipeline = settled(job.pipeline, job.settings)
    if pipeline.counted is not None:  # its tape begins at larger images
        return
    tape = open_tape(find_tape(pipeline))
    conditions = conditions_at(pipeline, job.settings, "8.6", tape)
    conditions = replace(conditions, workspace_bytes=note, cast_workspace_bytes={})
    rehearse(tape, conditions)
    for kind, shape in sorted(seen):
        if read_kind(kind) is not None:
            yield kind, shape[0], shape[1:]


def _fewest(name: str) -> dict[str, object]:
    return {"steps": 8} if name in ("sd15", "sdxl") else {}


def answers_path(folder: Path, capability: str) -> Path:
    """Return where the answers for an architecture are kept, a line each."""
    return folder / f"plans-{capability}.jsonl"


def drawn_cases(chance: random.Random, count: int = 5) -> list[Case]:
    """Return the catalogue's convolutions at settings drawn at random, so many a pipeline."""
    found: set[Case] = set()
    for name, crossed in _SIZES.items():
        for _ in range(count):
            modes, sizes = chance.choice(crossed)
            settings = {**chance.choice(modes), "batch": str(chance.randint(1, 6))}
            if "image" in sizes[0]:
                sides = (64 * chance.randint(4, 20) for _ in range(2))
                settings["image"] = "{}x{}".format(*sides)
            found |= set(cases_of(name, settings))
    return sorted(found)
