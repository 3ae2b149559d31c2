"""What is meant by an option that other programs have: a hint by meaning, not by spelling."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from vramplan.known_settings import NOT_MODELLED, SETTING_HELP

#: another program's option, without dashes -> ours
_MEANT: Mapping[str, str] = {
    **dict.fromkeys(("gpu", "gpus", "vram", "device", "memory", "gpu_memory", "cards"), "--card"),
    **dict.fromkeys(
        ("resolution", "size", "width", "height", "w", "h", "image_size", "res"), "--image"
    ),
    **dict.fromkeys(
        ("ctx", "c", "ctx_size", "n_ctx", "num_ctx", "context_length", "max_model_len", "tokens"),
        "--context",
    ),
    **dict.fromkeys(("batch_size", "b", "bs", "num_images_per_prompt", "n_samples"), "--batch"),
    **dict.fromkeys(("precision", "torch_dtype", "type", "fp16", "bf16", "half"), "--dtype"),
    **dict.fromkeys(("ngl", "n_gpu_layers", "num_gpu", "layers"), "--gpu-layers"),
    **dict.fromkeys(("ncmoe", "n_cpu_moe"), "--cpu-moe"),
    **dict.fromkeys(("ctk", "ctv", "cache_type_k", "cache_type_v", "kv_cache_type"), "--kv-type"),
    **dict.fromkeys(("max_new_tokens", "n_predict", "num_predict"), "--new-tokens"),
    **dict.fromkeys(("os", "windows", "wsl"), "--platform"),
    **dict.fromkeys(("reserve", "keep_free", "headroom"), "--margin"),
    **dict.fromkeys(("medvram", "lowvram", "cpu_offload", "offload_mode"), "--offload"),
    **dict.fromkeys(("out", "save", "file"), "-o"),
}


#: llama.cpp's options -> settings without an option of their own
_SET: Mapping[str, str] = {
    **dict.fromkeys(("lora", "lora_scaled"), "lora"),
    **dict.fromkeys(("ot", "override_tensor", "override_tensors"), "override_tensor"),
    **dict.fromkeys(("ts", "tensor_split"), "tensor_split"),
    **dict.fromkeys(("sm", "split_mode"), "split_mode"),
    **dict.fromkeys(("mg", "main_gpu"), "main_gpu"),
    **dict.fromkeys(("md", "model_draft"), "draft"),
    **dict.fromkeys(("ub", "ubatch_size"), "ubatch"),
    **dict.fromkeys(("control_vector", "control_vector_scaled"), "control_vector"),
}


def meant_option(word: str, known: Collection[str]) -> str | None:
    """Return the option of `known` that is meant by another program's, or None."""
    plain = _plain(word)
    setting = _SET.get(plain) or (plain if plain in SETTING_HELP else None)
    if setting is not None and f"--{setting.replace('_', '-')}" not in known:
        return f"--set {setting}=VALUE" if "--set" in known else None
    option = _MEANT.get(plain)
    return option if option in known else None


def not_modelled(word: str) -> str | None:
    """Return what an option asks for that is known and not modelled, in words, or None."""
    return NOT_MODELLED.get(_plain(word))


def _plain(word: str) -> str:
    return word.lstrip("-").lower().replace("-", "_")
