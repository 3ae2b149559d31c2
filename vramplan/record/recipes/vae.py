"""AutoencoderKL: encode and decode as routines, whole, in slices and in tiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from vramplan.record.assemble import Grammar
from vramplan.record.routines import Routines
from vramplan.record.session import Session

Value = Any

#: diffusers' AutoencoderKL: tiles of 64 latents (512 pixels), a quarter of which overlaps
_TILE, _STRIDE = 64, 48

_PLAIN = ("n", "h*w", "n*h*w", "n*h*w*h*w", "h*w*h*w")
_GRID = {"rows": f"-(-h//{_STRIDE})", "cols": f"-(-w//{_STRIDE})"}
_LOOPS = {"tile": "rows*cols", "row": "rows", "cell": "cols", "decode_slice": "n"}
_DECODE_TILES = {
    **_GRID,
    "th": f"min({_TILE},h-{_STRIDE}*(tile//cols))",
    "tw": f"min({_TILE},w-{_STRIDE}*(tile%cols))",
    "rh": f"min({_TILE},h-{_STRIDE}*row)",
    "cw": f"min({_TILE},w-{_STRIDE}*cell)",
}

VAE_GRAMMARS = {
    "vae.decoder": Grammar(products=_PLAIN),
    "vae.encoder": Grammar(products=_PLAIN),
    "vae.decode": Grammar(products=_PLAIN, counts={"decode_slice": "n"}),
    "vae.encode": Grammar(products=_PLAIN),
}


def wrap_vae(session: Session, vae: torch.nn.Module) -> None:
    """Turn the autoencoder's halves into routines; phases begin where they are called."""
    device, routines = session.device, session.routines
    v: Any = vae
    v.decoder.forward = routines.wrap("vae.decoder", v.decoder.forward, _latent_dims)
    v.encoder.forward = routines.wrap("vae.encoder", v.encoder.forward, _pixel_dims)
    decode, encode = v._decode, v._encode

    def begin_decode() -> None:
        device.end_loops()
        device.begin_phase("decode_image")

    def decode_part(*args: Value, **kwargs: Value) -> Value:
        if v.use_slicing and device.stream.dims["n"] > 1:
            device.iterate("decode_slice", until="aten.cat")
        return decode(*args, **kwargs)

    def encode_part(x: torch.Tensor) -> Value:
        if v.use_slicing and device.stream.dims["n"] > 1:
            device.iterate("encode_slice", until="aten.cat")
        return encode(x)

    v._decode = decode_part
    v._encode = encode_part
    v.decode = routines.wrap("vae.decode", v.decode, _latent_dims, begin_decode)


def _latent_dims(z: torch.Tensor, *_: Value, **__: Value) -> dict[str, int]:
    return {"n": z.shape[0], "h": z.shape[2], "w": z.shape[3]}


def _pixel_dims(x: torch.Tensor, *_: Value, **__: Value) -> dict[str, int]:
    return {"n": x.shape[0], "h": x.shape[2] // 8, "w": x.shape[3] // 8}
