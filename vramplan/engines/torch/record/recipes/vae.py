"""AutoencoderKL: encode and decode as routines, whole, in slices and in tiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.record.assemble import Grammar
from vramplan.engines.torch.record.classes import build_module
from vramplan.engines.torch.record.session import DTYPES, Facts, Recipe, Sample
from vramplan.engines.torch.record.stage import Stage
from vramplan.model import ComponentSpec

Value = Any

_PLAIN = ("n", "h*w", "n*h*w", "n*h*w*h*w", "h*w*h*w")

#: what AutoencoderKL takes where its config does not say (diffusers, autoencoder_kl.py)
_SAMPLE_SIZE = 32
_CHANNELS = (64,)


def pixels_a_latent(spec: ComponentSpec) -> int:
    """Return how many pixels a side a latent stands for: each level but the last halves it."""
    levels = spec.config.get("block_out_channels", _CHANNELS)
    return 1 << (len(levels) - 1) if isinstance(levels, (list, tuple)) and levels else 1


def tile_side(spec: ComponentSpec) -> int:
    """Return the side of AutoencoderKL's tiles in latents: its sample size over a latent's."""
    size = spec.config.get("sample_size", _SAMPLE_SIZE)
    if isinstance(size, (list, tuple)) and size:
        size = size[0]
    return (size if isinstance(size, int) else _SAMPLE_SIZE) // pixels_a_latent(spec)


def vae_dims(spec: ComponentSpec) -> dict[str, str]:
    """Return a run's dimensions, in latents, from batch and image."""
    scale = pixels_a_latent(spec)
    return {"n": "batch", "h": f"height//{scale}", "w": f"width//{scale}"}


def vae_grammars(spec: ComponentSpec) -> dict[str, Grammar]:
    """Return the grammars of an autoencoder's routines; tiles overlap by a quarter."""
    tile, scale = tile_side(spec), pixels_a_latent(spec)
    halved = [scale >> level for level in range(scale.bit_length() - 1)]
    # the encoder pads each level by one row and one column before it halves it
    padding = {f"{side}{k}": f"{k}*{side}+1" for k in halved for side in "hw"}
    stride, blend = tile * 3 // 4, tile // 4
    derived = {
        "rows": f"-(-h//{stride})",
        "cols": f"-(-w//{stride})",
        "th": f"min({tile},h-{stride}*(tile//cols))",
        "tw": f"min({tile},w-{stride}*(tile%cols))",
        "rh": f"min({tile},h-{stride}*row)",
        "kept": f"min({stride},h-{stride}*row)",
        "cw": f"min({tile},w-{stride}*cell)",
        "seam_v": f"min({blend},rh)",
        "seam_h": f"min({blend},cw)",
    }

    def whole(slices: str) -> Grammar:
        return Grammar(
            products=(*_PLAIN, "n*th*tw", "th*tw", "n*kept*w", "kept*w"),
            derived=derived,
            counts={slices: "n", "tile": "rows*cols", "row": "rows", "cell": "cols"},
            splits=("n==1", f"h<={tile} and w<={tile}"),
        )

    padded = tuple(f"n*h{k}*w{k}" for k in halved)
    return {
        "vae.decoder": Grammar(products=_PLAIN),
        "vae.encoder": Grammar(products=(*_PLAIN, *padded), derived=padding),
        "vae.decode": whole("decode_slice"),
        "vae.encode": whole("encode_slice"),
        "vae.blend": Grammar(products=("n*c*m",), counts={"line": "e"}),
    }


#: the VAE may run in another width than the rest (SDXL casts it up)
VAE_RELEVANT = {
    "vae.decoder": ("vae_width", "vae_kernel"),
    "vae.encoder": ("vae_width", "vae_kernel"),
    "vae.decode": ("vae_width", "vae_tiling", "vae_slicing"),
    "vae.encode": ("vae_width", "vae_tiling"),
    "vae.blend": ("vae_width",),
}

#: what a dtype means to the recordings: bf16 makes the same events as fp16 (a test records both)
WIDTHS = {
    "fp16": {"dtype": "fp16", "width": "16", "vae_width": "16"},
    "bf16": {"dtype": "fp16", "width": "16", "vae_width": "16"},
    "fp32": {"dtype": "fp32", "width": "32", "vae_width": "32"},
}

#: the parts a user would name, and where they are in the module
VAE_PARTS = {part: part for part in ("encoder", "decoder", "quant_conv", "post_quant_conv")}

#: tiles of fewer latents are recorded at more sizes
_LEAST_TILE = 32

#: latent height, width and batch for tiles of 64: three for each of one image or several, whole or
#: in ragged tiles
_TILED_SIDES = (
    (130, 100, 1), (101, 70, 1), (52, 110, 1), (66, 82, 2), (110, 150, 3), (76, 54, 2),
    (42, 60, 1), (64, 34, 1), (50, 64, 1), (64, 40, 2), (50, 64, 3), (36, 58, 2),
)  # fmt: skip


def tiled_sides(tile: int) -> list[tuple[int, int, int]]:
    """Return sizes that are whole and in ragged tiles, for tiles of `tile` latents."""
    scaled = [(max(1, h * tile // 64), max(1, w * tile // 64), n) for h, w, n in _TILED_SIDES]
    if tile >= _LEAST_TILE:
        return scaled
    # scaled down they end alike: here a last tile is one latent wide or high, two, three, or whole,
    # and never a single latent, whose matrix products torch makes otherwise
    s = tile * 3 // 4
    return [
        *scaled,
        (3 * s + 1, 2 * s + 3, 1), (2 * s + 3, 4 * s + 1, 2), (4 * s + 1, 3 * s + 2, 3),
        (s + 2, 3 * s + 1, 1), (5 * s + 2, 2 * s + 3, 2), (2 * s + 3, 5 * s + 1, 1),
    ]  # fmt: skip


def run_halves(
    vae: Value,
    numbers: Mapping[str, int],
    dtype: torch.dtype,
    halves: Sequence[str],
    target: torch.device,
) -> None:
    """Encode an image, decode a latent, or both, as a user of the bare autoencoder does."""
    n, height, width = numbers["batch"], numbers["height"], numbers["width"]
    if "encode" in halves:
        pixels = torch.zeros(n, 3, height, width, dtype=dtype).to(target)
        latents = vae.encode(pixels).latent_dist.sample()
        del pixels, latents
    if "decode" in halves:
        scale = 1 << (len(vae.config.block_out_channels) - 1)
        latents = torch.zeros(
            n, vae.config.latent_channels, height // scale, width // scale, dtype=dtype
        ).to(target)
        image = vae.decode(latents).sample
        del latents, image


def recipe(pipeline: TorchPipeline) -> Recipe:
    """Return the recipe of a bare autoencoder: encode, decode, or both one after the other."""
    (spec,) = pipeline.components

    def run(stage: Stage, sample: Sample) -> Callable[[], None]:
        vae: Value = stage.modules[spec.name]
        set_tiling(vae, sample.facts)
        if stage.is_new:
            if sample.facts["vae_kernel"] == "plain":
                vae.set_default_attn_processor()
            wrap_vae(stage, vae)
        halves = {"both": ("encode", "decode")}.get(sample.facts["mode"], (sample.facts["mode"],))
        return lambda: run_halves(vae, sample.numbers, vae.dtype, halves, stage.target)

    return Recipe(
        dims=vae_dims(spec),
        grammars={
            "main": Grammar(products=("n*h*w",), counts={"encode_slice": "n"}),
            **vae_grammars(spec),
        },
        relevant={"main": ("dtype", "mode", "vae_slicing"), **VAE_RELEVANT},
        sessions=_sessions(tiled_sides(tile_side(spec)), pixels_a_latent(spec)),
        build=lambda facts: {spec.name: build_module(spec, DTYPES[facts["dtype"]])},
        run=run,
        element_bytes=lambda facts: DTYPES[facts["dtype"]].itemsize,
        parts={spec.name: VAE_PARTS},
        dtype_facts=WIDTHS,
    )


def _sessions(
    sides: Sequence[tuple[int, int, int]], scale: int
) -> list[tuple[Facts, list[Sample]]]:
    sessions: list[tuple[Facts, list[Sample]]] = []
    for dtype in ("fp16", "fp32"):
        # its one head of 512 is too large for flash or cuDNN; before 8.0 bf16 has no fused kernel
        for kernel in ("efficient", "plain", *(("math",) if dtype == "fp16" else ())):
            best = "math" if kernel == "math" else "efficient"
            facts = {**WIDTHS[dtype], "kernel": best, "vae_kernel": kernel}
            tilings = ("off", "on") if kernel == "efficient" else ("off",)
            sessions.append((facts, [
                vae_sample(facts, side, mode, tiling, slicing, scale)
                for mode in ("both", "encode", "decode")
                for tiling in tilings
                for slicing in tilings
                for side in sides
            ]))  # fmt: skip
    return sessions


def vae_sample(
    facts: Facts, side: tuple[int, int, int], mode: str, tiling: str, slicing: str, scale: int
) -> Sample:
    """Return one run of a bare autoencoder; `side` is latent height, width and batch.

    `scale` is how many pixels a side a latent stands for.
    """
    h, w, n = side
    return Sample(
        numbers={"batch": n, "height": scale * h, "width": scale * w},
        facts={**facts, "mode": mode, "vae_tiling": tiling, "vae_slicing": slicing},
    )


def set_tiling(vae: Value, facts: Facts) -> None:
    """Switch tiling and slicing on or off."""
    for kind in ("tiling", "slicing"):
        getattr(vae, ("enable_" if facts[f"vae_{kind}"] == "on" else "disable_") + kind)()


def wrap_vae(stage: Stage, vae: torch.nn.Module) -> None:
    """Turn the autoencoder's halves into routines; phases begin where they are called."""
    marks, routines = stage.marks, stage.routines
    v: Any = vae
    v.decoder.forward = routines.wrap("vae.decoder", v.decoder.forward, _latent_dims)
    pixel_dims = _pixel_dims(1 << (len(v.config.block_out_channels) - 1))
    v.encoder.forward = routines.wrap("vae.encoder", v.encoder.forward, pixel_dims)
    tiles = _Tiles(stage, v)
    v.tiled_decode = tiles.watch(v.tiled_decode, _latent_dims, v.post_quant_conv, v.decoder)
    v._tiled_encode = tiles.watch(v._tiled_encode, pixel_dims, v.encoder, v.quant_conv)
    decode, encode = v._decode, routines.wrap("vae.encode", v._encode, pixel_dims)

    def decode_part(*args: Value, **kwargs: Value) -> Value:
        if v.use_slicing and marks.stream.dims["n"] > 1:
            marks.iterate("decode_slice", until="aten.cat")
        return decode(*args, **kwargs)

    def encode_part(x: torch.Tensor) -> Value:
        if v.use_slicing and marks.stream.dims["n"] > 1:
            marks.iterate("encode_slice", until="aten.cat")
        return encode(x)

    def begin_decode() -> None:
        marks.end_loops()
        marks.begin_phase("decode_image")

    v._decode = decode_part
    v._encode = encode_part
    v.decode = routines.wrap("vae.decode", v.decode, _latent_dims, begin_decode)
    whole_encode = v.encode

    def encode_image(*args: Value, **kwargs: Value) -> Value:
        marks.end_loops()
        marks.begin_phase("encode_image")
        return whole_encode(*args, **kwargs)

    v.encode = encode_image


class _Tiles:
    """Marks the loops of diffusers' tiled code: tiles, then rows of cells that are blended."""

    def __init__(self, stage: Stage, vae: Value) -> None:
        self.marks = stage.marks
        self.stride = vae.tile_latent_min_size * 3 // 4
        self.left = 0  # tiles still to be made; 0 outside of the tiled code
        self.is_blending = False
        blend = stage.routines.wrap("vae.blend", self._blend, _blend_dims)
        vae.blend_v = self._seam(vae.blend_v, 2, blend)
        vae.blend_h = self._seam(vae.blend_h, 3, blend)

    def watch(
        self,
        tiled: Callable[..., Value],
        dims_of: Callable[..., dict[str, int]],
        first: Value,
        last: Value,
    ) -> Callable[..., Value]:
        """Return `tiled` with its loops marked; `first` begins a tile, `last` ends it."""
        begin, end = first.forward, last.forward

        def begin_tile(*args: Value, **kwargs: Value) -> Value:
            if self.left:
                self.marks.iterate("tile")
            return begin(*args, **kwargs)

        def end_tile(*args: Value, **kwargs: Value) -> Value:
            result = end(*args, **kwargs)
            if self.left:
                self.left -= 1
                if not self.left:
                    self._begin_rows()
            return result

        first.forward, last.forward = begin_tile, end_tile

        def run(x: torch.Tensor, *args: Value, **kwargs: Value) -> Value:
            dims = dims_of(x)
            self.left = -(-dims["h"] // self.stride) * -(-dims["w"] // self.stride)
            return tiled(x, *args, **kwargs)

        return run

    def _begin_rows(self) -> None:
        self.is_blending = False
        self.marks.end_loop()
        self.marks.iterate("row", until="aten.cat")
        self.marks.iterate("cell", until="aten.cat")

    def _seam(
        self, blend: Callable[..., Value], axis: int, routine: Callable[..., Value]
    ) -> Callable[..., Value]:
        def seam(above: torch.Tensor, tile: torch.Tensor, extent: int) -> torch.Tensor:
            loops = self.marks.stream.open_loops
            if axis == 2:  # every cell below the first row begins with its upper seam
                if "cell" not in loops:
                    self.marks.iterate("row")
                self.marks.iterate("cell")
                self.is_blending = True
            elif not self.is_blending:  # a cell of the first row begins with its left seam
                self.marks.iterate("cell")
            if axis == 3:
                self.is_blending = False
            routine(blend, above, tile, extent, axis)
            return tile

        return seam

    def _blend(
        self, blend: Callable[..., Value], a: torch.Tensor, b: torch.Tensor, extent: int, _: int
    ) -> None:
        with self.marks.beating("line", "aten.mul", 2):
            blend(a, b, extent)


def _blend_dims(
    _: Value, a: torch.Tensor, b: torch.Tensor, extent: int, axis: int
) -> dict[str, int]:
    n, c = b.shape[:2]
    return {"n": n, "c": c, "m": b.shape[5 - axis], "e": min(a.shape[axis], b.shape[axis], extent)}


def _latent_dims(z: torch.Tensor, *_: Value, **__: Value) -> dict[str, int]:
    return {"n": z.shape[0], "h": z.shape[2], "w": z.shape[3]}


def _pixel_dims(scale: int) -> Callable[..., dict[str, int]]:
    def dims(x: torch.Tensor, *_: Value, **__: Value) -> dict[str, int]:
        return {"n": x.shape[0], "h": x.shape[2] // scale, "w": x.shape[3] // scale}

    return dims
