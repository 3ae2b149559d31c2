"""Projector files (mmproj) whose header is right and whose data is a hole, one for each family.

Shapes are those of real models, with few layers: the compute buffer does not depend on how many.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_PATH = Path(__file__).parent / "sparse_gguf.py"
_SPEC = importlib.util.spec_from_file_location("sparse_gguf", _PATH)
sparse = sys.modules.setdefault("sparse_gguf", importlib.util.module_from_spec(_SPEC))
if not hasattr(sparse, "Model"):
    _SPEC.loader.exec_module(sparse)

F16, F32 = sparse.F16, sparse.F32


def encoder(
    family: str,
    *,
    image: int,
    patch: int,
    wide: int,
    inner: int,
    heads: int,
    layers: int = 2,
    projection: int = 0,
) -> object:
    """Return a file's frame: its keys and nothing else."""
    model = sparse.Model("clip", words=0)
    model.meta = {
        "has_vision_encoder": True,
        "projector_type": family,
        "use_gelu": True,
        "vision.image_size": image,
        "vision.patch_size": patch,
        "vision.embedding_length": wide,
        "vision.feed_forward_length": inner,
        "vision.attention.head_count": heads,
        "vision.block_count": layers,
        "vision.projection_dim": projection or wide,
        "vision.attention.layer_norm_epsilon": 1e-6,
        "vision.image_mean": [0.5, 0.5, 0.5],
        "vision.image_std": [0.5, 0.5, 0.5],
    }
    return model


def linear(model: object, name: str, *shape: int, bias: bool = True) -> None:
    """Add a matrix in f16, and its bias."""
    model.add(f"{name}.weight", *shape, kind=F16)
    if bias:
        model.add(f"{name}.bias", shape[-1])


def norm(model: object, name: str, wide: int, *, bias: bool = True) -> None:
    """Add a norm's weight, and its bias."""
    model.add(f"{name}.weight", wide)
    if bias:
        model.add(f"{name}.bias", wide)


def layers(model: object, *parts: str) -> object:
    """Add every layer's tensors; `parts` say what differs from CLIP's."""
    meta = model.meta
    wide, inner = meta["vision.embedding_length"], meta["vision.feed_forward_length"]
    bias = "no bias" not in parts
    for number in range(meta["vision.block_count"]):
        at = f"v.blk.{number}"
        if "fused qkv" in parts:
            linear(model, f"{at}.attn_qkv", wide, 3 * wide, bias=bias)
        else:
            for part in ("attn_q", "attn_k", "attn_v"):
                linear(model, f"{at}.{part}", wide, wide, bias=bias)
        if "qk norm" in parts:
            model.add(f"{at}.attn_q_norm.weight", wide)
            model.add(f"{at}.attn_k_norm.weight", wide)
        if "head norms" in parts:
            head = wide // meta["vision.attention.head_count"]
            model.add(f"{at}.attn_q_norm.weight", head)
            model.add(f"{at}.attn_k_norm.weight", head)
        if "norms behind" in parts:
            model.add(f"{at}.attn_post_norm.weight", wide)
            model.add(f"{at}.ffn_post_norm.weight", wide)
        linear(model, f"{at}.attn_out", wide, wide, bias=bias)
        for part in ("ln1", "ln2"):
            norm(model, f"{at}.{part}", wide, bias=bias and "rms" not in parts)
        if "scales" in parts:
            model.add(f"{at}.ls1.weight", wide)
            model.add(f"{at}.ls2.weight", wide)
        if "gate" in parts:
            linear(model, f"{at}.ffn_gate", wide, inner, bias=bias)
        linear(model, f"{at}.ffn_up", wide, inner, bias=bias)
        linear(model, f"{at}.ffn_down", inner, wide, bias=bias)
    return model


def patches(model: object, *parts: str) -> None:
    """Add the patch embedding, and learned positions for the image's size."""
    meta = model.meta
    wide, patch = meta["vision.embedding_length"], meta["vision.patch_size"]
    model.add("v.patch_embd.weight", patch, patch, 3, wide, kind=F16)
    if "two frames" in parts:
        model.add("v.patch_embd.weight.1", patch, patch, 3, wide, kind=F16)
    if "bias" in parts:
        model.add("v.patch_embd.bias", wide)
    if "class" in parts:
        model.add("v.class_embd", wide)
    if "no positions" not in parts:
        count = (meta["vision.image_size"] // patch) ** 2 + ("class" in parts)
        model.add("v.position_embd.weight", wide, count, kind=F32)


def llava(image: int = 336, count: int = 2, wide: int = 1024, text: int = 4096) -> object:
    """Return CLIP-L/14 with LLaVA's projector; in full 23 layers."""
    model = encoder(
        "mlp", image=image, patch=14, wide=wide, inner=4 * wide, heads=wide // 64, layers=count,
        projection=768,
    )  # fmt: skip
    patches(model, "class")
    norm(model, "v.pre_ln", wide)
    layers(model)
    linear(model, "mm.0", wide, text)
    linear(model, "mm.2", text, text)
    return model


def yi() -> object:
    """Return a projector with norms (Yi-VL)."""
    model = encoder("mlp", image=448, patch=14, wide=1280, inner=5120, heads=16)
    patches(model, "class")
    norm(model, "v.pre_ln", 1280)
    layers(model)
    linear(model, "mm.0", 1280, 4096)
    norm(model, "mm.1", 4096)
    linear(model, "mm.3", 4096, 4096)
    norm(model, "mm.4", 4096)
    return model


def swapped() -> object:
    """Return a file of old, whose layers have the names of up and down exchanged."""
    model = llava(224)
    names = {"ffn_up": "ffn_down", "ffn_down": "ffn_up"}
    model.tensors = [
        (next((n.replace(a, b) for a, b in names.items() if a in n), n), shape, kind)
        for n, shape, kind in model.tensors
    ]
    return model


def siglip(family: str, image: int, patch: int, wide: int, inner: int, heads: int) -> object:
    """Return SigLIP without a projector."""
    model = encoder(family, image=image, patch=patch, wide=wide, inner=inner, heads=heads)
    patches(model, "bias")
    layers(model)
    norm(model, "v.post_ln", wide)
    return model


def gemma3(image: int = 896) -> object:
    """Return SigLIP-400M/14-896 with Gemma 3's projector."""
    model = siglip("gemma3", image, 14, 1152, 4304, 16)
    model.meta["vision.projection_dim"] = 2560
    model.add("mm.input_projection.weight", 2560, 1152, kind=F16)
    model.add("mm.soft_emb_norm.weight", 1152)
    return model


def smolvlm() -> object:
    """Return SigLIP-B/16-512 with SmolVLM's projector."""
    model = siglip("idefics3", 512, 16, 768, 3072, 12)
    model.meta["vision.projector.scale_factor"] = 4
    model.add("mm.model.fc.weight", 768 * 16, 960, kind=F16)
    return model


def lfm2() -> object:
    """Return SigLIP2-400M/16 with LFM2-VL's projector."""
    model = siglip("lfm2", 256, 16, 1152, 4304, 16)
    model.meta["vision.projector.scale_factor"] = 2
    norm(model, "mm.input_norm", 1152 * 4)
    linear(model, "mm.1", 1152 * 4, 2560)
    linear(model, "mm.2", 2560, 2048)
    return model


def internvl() -> object:
    """Return InternViT-300M/14-448 with InternVL's projector."""
    model = encoder("internvl", image=448, patch=14, wide=1024, inner=4096, heads=16)
    model.meta["vision.projector.scale_factor"] = 2
    patches(model, "bias", "class")
    layers(model, "scales")
    norm(model, "mm.model.mlp.0", 4096)
    linear(model, "mm.model.mlp.1", 4096, 3584)
    linear(model, "mm.model.mlp.3", 3584, 3584)
    return model


def pixtral() -> object:
    """Return Pixtral-12B's encoder."""
    model = encoder("pixtral", image=1024, patch=16, wide=1024, inner=4096, heads=16)
    patches(model, "no positions")
    norm(model, "v.pre_ln", 1024, bias=False)
    layers(model, "no bias", "gate")
    linear(model, "mm.1", 1024, 5120)
    linear(model, "mm.2", 5120, 5120)
    model.add("v.token_embd.img_break", 5120)
    return model


def mistral_small() -> object:
    """Return Mistral Small 3.1's encoder, whose tokens are squares of patches."""
    model = encoder("pixtral", image=1540, patch=14, wide=1024, inner=4096, heads=16)
    model.meta["vision.spatial_merge_size"] = 2
    patches(model, "no positions")
    norm(model, "v.pre_ln", 1024, bias=False)
    layers(model, "no bias", "gate")
    model.add("mm.input_norm.weight", 1024)
    linear(model, "mm.patch_merger", 4096, 1024, bias=False)
    linear(model, "mm.1", 1024, 5120, bias=False)
    linear(model, "mm.2", 5120, 5120, bias=False)
    model.add("v.token_embd.img_break", 5120)
    return model


def gemma4(count: int = 2) -> object:
    """Return Gemma 4's encoder, with norms behind and one table of positions for each side."""
    model = encoder("gemma4v", image=224, patch=16, wide=1152, inner=4304, heads=16, layers=count)
    model.add("v.patch_embd.weight", 16, 16, 3, 1152, kind=F16)
    model.add("v.position_embd.weight", 1152, 10240, 2, kind=F32)
    layers(model, "no bias", "gate", "norms behind", "head norms")
    model.add("v.std_bias", 1152)
    model.add("v.std_scale", 1152)
    model.add("mm.input_projection.weight", 1152, 5376, kind=F16)
    return model


def kimi() -> object:
    """Return MoonViT with Kimi-VL's projector."""
    model = encoder("kimivl", image=896, patch=14, wide=1152, inner=4304, heads=16)
    model.meta["vision.projector.scale_factor"] = 2
    patches(model, "bias")
    layers(model)
    norm(model, "v.post_ln", 1152)
    norm(model, "mm.input_norm", 1152)
    linear(model, "mm.1", 4608, 4608)
    linear(model, "mm.2", 4608, 2048)
    return model


def llama4() -> object:
    """Return Llama 4's encoder."""
    model = encoder("llama4", image=336, patch=14, wide=1408, inner=5632, heads=16)
    model.meta["vision.projector.scale_factor"] = 2
    model.add("v.patch_embd.weight", 588, 1408, kind=F16)
    model.add("v.class_embd", 1408)
    model.add("v.position_embd.weight", 1408, 577, kind=F32)
    norm(model, "v.pre_ln", 1408)
    layers(model)
    norm(model, "v.post_ln", 1408)
    linear(model, "mm.model.mlp.1", 5632, 4096, bias=False)
    linear(model, "mm.model.mlp.2", 4096, 4096, bias=False)
    linear(model, "mm.model.fc", 4096, 5120, bias=False)
    return model


def janus() -> object:
    """Return SigLIP-L/16-384 with Janus Pro's projector."""
    model = siglip("janus_pro", 384, 16, 1024, 4096, 16)
    linear(model, "mm.0", 1024, 4096)
    linear(model, "mm.1", 4096, 4096)
    return model


def qwen2vl(merge: int = 2) -> object:
    """Return Qwen2-VL-7B's encoder; `merge` decides how many patches the engine reserves for."""
    model = encoder("qwen2vl_merger", image=560, patch=14, wide=1280, inner=5120, heads=16)
    model.meta["vision.spatial_merge_size"] = merge
    patches(model, "no positions", "two frames")
    layers(model)
    norm(model, "v.post_ln", 1280)
    linear(model, "mm.0", 5120, 5120)
    linear(model, "mm.2", 5120, 3584)
    return model


def qwen25vl(merge: int = 2) -> object:
    """Return Qwen2.5-VL-7B's encoder, with a layer that sees everything and one that does not."""
    model = encoder(
        "qwen2.5vl_merger", image=560, patch=14, wide=1280, inner=3420, heads=16, projection=3584
    )
    model.meta |= {"vision.spatial_merge_size": merge, "vision.n_wa_pattern": 2, "use_gelu": False}
    model.meta["use_silu"] = True
    patches(model, "no positions", "two frames")
    layers(model, "rms", "gate")
    norm(model, "v.post_ln", 1280, bias=False)
    linear(model, "mm.0", 5120, 5120)
    linear(model, "mm.2", 5120, 3584)
    return model


def qwen3vl(count: int = 3, deep: tuple[int, ...] = (0, 2)) -> object:
    """Return Qwen3-VL-8B's encoder, some of whose layers have projectors."""
    model = encoder(
        "qwen3vl_merger", image=768, patch=16, wide=1152, inner=4304, heads=16, layers=count,
        projection=4096,
    )  # fmt: skip
    model.meta["vision.spatial_merge_size"] = 2
    patches(model, "two frames", "bias")
    layers(model, "fused qkv")
    norm(model, "v.post_ln", 1152)
    for number in deep:
        norm(model, f"v.deepstack.{number}.norm", 4608)
        linear(model, f"v.deepstack.{number}.fc1", 4608, 4608)
        linear(model, f"v.deepstack.{number}.fc2", 4608, 4096)
    linear(model, "mm.0", 4608, 4608)
    linear(model, "mm.2", 4608, 4096)
    return model


def families() -> dict[str, object]:
    """Return a small file of each family."""
    return {
        "llava": llava(),
        "llava-224": llava(224),
        "bakllava-swapped": swapped(),
        "yi": yi(),
        "gemma3": gemma3(),
        "gemma3-448": gemma3(448),
        "smolvlm": smolvlm(),
        "lfm2": lfm2(),
        "internvl": internvl(),
        "pixtral": pixtral(),
        "mistral-small": mistral_small(),
        "gemma4": gemma4(),
        "kimi": kimi(),
        "llama4": llama4(),
        "janus": janus(),
        "qwen2vl": qwen2vl(),
        "qwen2vl-small": qwen2vl(1),
        "qwen2.5vl": qwen25vl(),
        "qwen2.5vl-small": qwen25vl(1),
        "qwen3vl": qwen3vl(),
    }
