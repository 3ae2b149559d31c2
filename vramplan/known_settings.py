"""The settings there are: how each is read, its line of help, and other names for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vramplan.errors import UsageError, did_you_mean
from vramplan.quick_dataclass import dataclass
from vramplan.setting_values import (
    ALL_EXPERTS,
    ALL_LAYERS,
    ATTENTIONS,
    AUTO,
    CACHE_CONFIG,
    CACHE_SYNONYMS,
    CACHES,
    DEVICE_MAPS,
    DTYPE_SYNONYMS,
    DTYPES,
    FLASH_ATTENTIONS,
    KV_SYNONYMS,
    KV_TYPES,
    KV_UNIFIEDS,
    NONE,
    OFFLOAD_TYPES,
    OFFLOADS,
    PLATFORMS,
    POOLINGS,
    QUANTISED_DTYPES,
    QUANTIZATIONS,
    SAME,
    SPLIT_MODES,
    SWITCH,
    SWITCH_SYNONYMS,
    Choice,
    SettingValue,
    choice,
    read_cache_config,
    read_count,
    read_count_or_auto,
    read_experts,
    read_files,
    read_guardrail,
    read_image,
    read_index,
    read_layers,
    read_number,
    read_overrides,
    read_quantization,
    read_share,
    read_split,
    read_tokens,
    read_tokens_or_auto,
    read_word,
)

#: how like a setting's name a word must be to be taken for it: 'controlnet' is not 'context'
LIKENESS = 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownSetting:
    """How one setting is read, and the line that --help shows for it.

    `takes_more`: more than the most that there is stands for all of it.
    """

    read: Callable[[str, str], SettingValue]
    help: str
    takes_more: bool = False


SETTINGS: Mapping[str, KnownSetting] = {
    "image": KnownSetting(read=read_image, help="image size, WIDTHxHEIGHT (a bare 512 is square)"),
    "batch": KnownSetting(read=read_count, help="images or sequences computed at once"),
    "frames": KnownSetting(read=read_count, help="frames of the video that is made"),
    "dtype": KnownSetting(
        read=choice(
            DTYPES,
            DTYPE_SYNONYMS,
            {word: f"quantization={way}" for word, way in QUANTISED_DTYPES.items()},
        ),
        help="element type of the weights: fp16, bf16, fp32",
    ),
    "mode": KnownSetting(
        read=read_word, help="what is run, such as txt2img, img2img, encode, train"
    ),
    "steps": KnownSetting(read=read_count, help="denoising or training steps"),
    "guidance": KnownSetting(
        read=read_number, help="classifier-free guidance scale; above 1 it doubles the batch"
    ),
    "attention": KnownSetting(
        read=choice(ATTENTIONS), help="attention kernels: sdpa (fused), math, sliced"
    ),
    "offload": KnownSetting(
        read=choice(OFFLOADS),
        help="what leaves the GPU between uses: none, model, sequential, group, auto",
    ),
    "offload_type": KnownSetting(
        read=choice(OFFLOAD_TYPES),
        help="what group offload moves at once: block_level, leaf_level",
    ),
    "num_blocks_per_group": KnownSetting(
        read=read_count, help="blocks that group offload moves together, with block_level"
    ),
    "use_stream": KnownSetting(
        read=SWITCH,
        help="group offload brings the next group while one runs, so two are there: on, off",
    ),
    "quantization": KnownSetting(
        read=read_quantization,
        help="weights in 8 or 4 bits, by torch's libraries: bnb-8bit, bnb-4bit, bnb-4bit-dq, "
        "torchao-int8, quanto-int8, gguf-q8_0, fp8-layerwise and more; transformer:bnb-4bit for "
        "one component, several with semicolons; none",
    ),
    "vae_tiling": KnownSetting(read=SWITCH, help="decode and encode the image in tiles: on, off"),
    "vae_slicing": KnownSetting(read=SWITCH, help="decode a batch image by image: on, off"),
    "vae_upcast": KnownSetting(
        read=SWITCH,
        help="in fp16 the VAE is cast to fp32 before it decodes: on; off for a VAE that needs no "
        "cast, such as sdxl-vae-fp16-fix",
    ),
    "device_map": KnownSetting(
        read=choice(DEVICE_MAPS),
        help="who places a Transformers model's layers: auto or balanced (the loader, which offers "
        "itself 90 % of what is free; on one GPU they are the same), cuda (all on the GPU)",
    ),
    "safety_checker": KnownSetting(read=SWITCH, help="load and run the safety checker: on, off"),
    "prompt_tokens": KnownSetting(
        read=read_tokens, help="tokens of the prompt, without the image's; 2k is 2048"
    ),
    "new_tokens": KnownSetting(read=read_tokens, help="tokens to generate; 1k is 1024"),
    "cache_implementation": KnownSetting(
        read=choice(CACHES, CACHE_SYNONYMS),
        help="the KV cache that transformers' generate() is told to use: dynamic (it grows), "
        "static (max_cache_len from the first token on), offloaded, offloaded_static, quantized",
    ),
    "max_cache_len": KnownSetting(
        read=read_tokens_or_auto,
        help="tokens that a static cache has room for, 4k is 4096; auto for prompt and new tokens",
    ),
    "cache_config": KnownSetting(
        read=read_cache_config,
        help="of a quantized cache: backend:quanto (or hqq, fp8), nbits:4, q_group_size:64, "
        "residual_length:128, with semicolons between; none for these",
    ),
    "context": KnownSetting(
        read=read_tokens_or_auto,
        help="tokens the KV cache has room for, 16k is 16384; auto for what the engine takes by "
        "itself",
    ),
    "ubatch": KnownSetting(
        read=read_tokens_or_auto,
        help="tokens of a prompt computed at once (llama.cpp); auto for what the engine takes",
    ),
    "batch_tokens": KnownSetting(
        read=read_tokens,
        help="tokens that llama.cpp takes at once (its -b, 2,048 by itself): ubatch is no more",
    ),
    "parallel": KnownSetting(
        read=read_count_or_auto,
        help="requests served at once (llama.cpp, Ollama); auto for what llama-server takes",
    ),
    "kv_unified": KnownSetting(
        read=choice(KV_UNIFIEDS, SWITCH_SYNONYMS),
        help="all requests share one KV cache (llama.cpp's --kv-unified), instead of a part for "
        "each: on, off, auto",
    ),
    "swa_full": KnownSetting(
        read=SWITCH,
        help="layers that see a window hold the whole context (llama.cpp's --swa-full): on, off",
    ),
    "kv_type": KnownSetting(
        read=choice(KV_TYPES, KV_SYNONYMS),
        help="element type of the KV cache: f16, q8_0, q4_0",
    ),
    "key_type": KnownSetting(
        read=choice((*KV_TYPES, SAME), KV_SYNONYMS),
        help="element type of the cache's keys (llama.cpp's -ctk), where it is not kv_type's",
    ),
    "value_type": KnownSetting(
        read=choice((*KV_TYPES, SAME), KV_SYNONYMS),
        help="element type of the cache's values (llama.cpp's -ctv), where it is not kv_type's",
    ),
    "kv_offload": KnownSetting(
        read=SWITCH,
        help="the KV cache is where its layers are (on), or in host memory (off; llama.cpp's "
        "--no-kv-offload)",
    ),
    "mmproj_offload": KnownSetting(
        read=SWITCH,
        help="the projector is on the GPU (on), or computed on the CPU (off; llama.cpp's "
        "--no-mmproj-offload)",
    ),
    "load_mtp": KnownSetting(
        read=SWITCH,
        help="load the layers that guess the tokens after the next, and a second context for them",
    ),
    "flash_attention": KnownSetting(
        read=choice(FLASH_ATTENTIONS, SWITCH_SYNONYMS),
        help="flash attention in llama.cpp: on, off, auto",
    ),
    "gpu_layers": KnownSetting(
        read=read_layers,
        help="layers on the GPU: a number, all, auto; more than there are is all (-ngl 99)",
        takes_more=True,  # as llama.cpp and Ollama have it
    ),
    "cpu_moe": KnownSetting(
        read=read_experts,
        help="layers whose experts stay in host memory: a number from the first on (llama.cpp's "
        "--n-cpu-moe), layers such as 6-39 (-ot), all, 0 for what the engine chooses",
    ),
    "override_tensor": KnownSetting(
        read=read_overrides,
        help="tensors elsewhere than their layer (llama.cpp's -ot): PATTERN=CPU or =CUDA1, several "
        "with semicolons, the first that matches counts; none",
    ),
    "split_mode": KnownSetting(
        read=choice(SPLIT_MODES),
        help="how several cards share a model (llama.cpp's -sm): layer, none (main_gpu has all), "
        "auto for what the engine does; row and tensor are not modelled",
    ),
    "tensor_split": KnownSetting(
        read=read_split,
        help="the shares that several cards have of the layers (llama.cpp's -ts), such as 3/1; "
        "auto for what is free on each",
    ),
    "main_gpu": KnownSetting(
        read=read_index,
        help="the card that has all of a model with split_mode=none (llama.cpp's -mg), from 0",
    ),
    "lora": KnownSetting(
        read=read_files,
        help="LoRA adapters beside the model: .gguf files (llama.cpp's --lora), .safetensors files "
        "or a rank such as rank16 (torch; rank16:bf16, :fused for one in the weights), several "
        "with semicolons; none",
    ),
    "controlnet": KnownSetting(
        read=read_files,
        help="ControlNets beside a pipeline of SD 1.5, 2.1, SDXL or FLUX.1: canny, depth and "
        "others (of FLUX.1 canny, union, union-pro-2.0), a .safetensors file, a folder or "
        "hf:ORG/NAME, several with semicolons; none",
    ),
    "ip_adapter": KnownSetting(
        read=read_files,
        help="IP-Adapters of SD 1.5, SDXL or FLUX.1, with their image encoder: ip-adapter_sd15, "
        "ip-adapter-plus_sdxl_vit-h, flux-ip-adapter and others, or a .safetensors file, several "
        "with semicolons; none",
    ),
    "control_vector": KnownSetting(
        read=read_files,
        help="control vectors beside the model (llama.cpp's --control-vector): .gguf files; none",
    ),
    "draft": KnownSetting(
        read=read_files,
        help="a small model that guesses ahead (llama.cpp's -md), a .gguf file; none",
    ),
    "gpu_offload": KnownSetting(
        read=read_share,
        help="LM Studio's share of the layers on the GPU: 0 to 1, max, off, auto for what fits",
    ),
    "expert_offload": KnownSetting(
        read=read_share,
        help="LM Studio's share of the layers whose experts are forced onto the CPU: 0 to 1, max, "
        "off",
    ),
    "guardrail": KnownSetting(
        read=read_guardrail,
        help="what LM Studio refuses to load: off, relaxed, balanced, strict, or a limit (12GiB)",
    ),
    "embedding": KnownSetting(
        read=SWITCH,
        help="llama-server is to embed only (its --embedding): a result for every token: on, off",
    ),
    "pooling": KnownSetting(
        read=choice(POOLINGS),
        help="how embeddings of tokens become one (llama.cpp's --pooling): none, mean, cls, last, "
        "rank, auto for the model's own",
    ),
    "engine": KnownSetting(read=read_word, help="the engine's version whose rules apply"),
    "expandable_segments": KnownSetting(
        read=SWITCH, help="PYTORCH_ALLOC_CONF=expandable_segments:True: on, off"
    ),
    "platform": KnownSetting(
        read=choice(PLATFORMS), help="where it runs: linux, windows (spills to RAM), wsl"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What a setting's values look like, for whoever offers them to be chosen.

    `kind` is choice (one of `words`), size (``WIDTHxHEIGHT``), count (a whole number from `least`
    on, or one of `words`), number, files (names of files on this machine) or text.
    """

    kind: str
    words: tuple[str, ...] = ()
    least: int = 1


def form_of(key: str) -> Form:
    """Return the form of a setting's values. Raises UsageError for a setting nobody knows."""
    read = find_setting(key).read
    if isinstance(read, Choice):
        return Form(kind="choice", words=read.words)
    forms: Mapping[Callable[[str, str], SettingValue], Form] = {
        read_image: Form(kind="size"),
        read_count: Form(kind="count"),
        read_count_or_auto: Form(kind="count", words=(AUTO,)),
        read_tokens: Form(kind="count"),
        read_tokens_or_auto: Form(kind="count", words=(AUTO,)),
        read_layers: Form(kind="count", words=ALL_LAYERS, least=0),
        read_experts: Form(kind="count", words=(ALL_EXPERTS,), least=0),
        read_index: Form(kind="count", least=0),
        read_number: Form(kind="number"),
        read_files: Form(kind="files"),
        read_quantization: Form(kind="choice", words=(NONE, *QUANTIZATIONS)),
    }
    return forms.get(read, Form(kind="text"))


#: what people add to a model and vramplan does not plan, by the names that they give it
NOT_MODELLED: Mapping[str, str] = {
    **dict.fromkeys(("loras", "lora_scale", "adapter", "adapters"), "LoRA adapters"),
    **dict.fromkeys(("t2i_adapter", "t2iadapter"), "T2I-Adapters"),
    **dict.fromkeys(("textual_inversion", "embeddings", "hypernetwork"), "embeddings added later"),
    **dict.fromkeys(("refiner", "upscaler", "hires_fix"), "further models behind the first"),
    **dict.fromkeys(("torch_compile", "compile", "cuda_graphs"), "torch.compile and CUDA graphs"),
    **dict.fromkeys(("xformers", "sage_attention", "deepcache", "tome"), "attention of others"),
    **dict.fromkeys(("fps", "frame_rate"), "the speed of a video"),
    **dict.fromkeys(("tensor_parallel", "pipeline_parallel", "num_gpus"), "several GPUs"),
}

#: what some pipelines have a setting for, and others do not
MODELLED_BY_SOME: Mapping[str, str] = {
    "lora": "LoRA adapters here",
    "quantization": "weights quantised by torch here",
    "controlnet": "ControlNets here",
    "ip_adapter": "IP-Adapters here",
}

#: one line on every setting, for --help, in the order they are shown
SETTING_HELP: dict[str, str] = {key: setting.help for key, setting in SETTINGS.items()}


#: settings that torch's pipelines have and most runs leave alone, at what changes nothing
IDLE: Mapping[str, SettingValue] = {
    "quantization": NONE,
    "lora": NONE,
    "controlnet": NONE,
    "ip_adapter": NONE,
    "cache_implementation": CACHES[0],
}
#: those of them that change weights
OF_WEIGHTS = ("quantization", "lora", "controlnet", "ip_adapter")
#: and those that say how group offload works
OF_GROUPS: Mapping[str, SettingValue] = {
    "offload_type": OFFLOAD_TYPES[0],
    "num_blocks_per_group": 1,
    "use_stream": "off",
}

#: and those that say how another cache than the growing one works
OF_CACHES: Mapping[str, SettingValue] = {"max_cache_len": AUTO, CACHE_CONFIG: NONE}
_TELLS: Mapping[str, tuple[str, ...]] = {
    "max_cache_len": ("static", "offloaded_static"),
    CACHE_CONFIG: ("quantized",),
}


def told(chosen: Mapping[str, SettingValue]) -> dict[str, SettingValue]:
    """Return settings without those that have nothing to say: idle ones, and how to do nothing."""
    is_grouped = chosen.get("offload") == "group"
    cache = chosen.get("cache_implementation")
    return {
        key: value
        for key, value in chosen.items()
        if value != IDLE.get(key)
        and (is_grouped or key not in OF_GROUPS)
        and (key not in OF_CACHES or cache in _TELLS[key])
    }


def find_setting(key: str) -> KnownSetting:
    """Return a setting by its name. Raises UsageError for one that nobody knows."""
    setting = SETTINGS.get(key)
    if setting is None:
        refuse_unmodelled(key, NOT_MODELLED)
        plain = key.lower().replace("-", "_").strip("_")
        theirs = plain if plain in SETTINGS else _OF_OTHERS.get(plain)
        near = did_you_mean(key, SETTINGS, likeness=LIKENESS)
        hint = near or "settings: " + ", ".join(SETTINGS)
        if theirs is not None:
            hint = f"here it is called {theirs}"
        raise UsageError(f"unknown setting {key!r}", hint=hint)
    return setting


#: what llama.cpp's options and Ollama's parameters are called here (common/arg.cpp; api/types.go)
_OF_OTHERS = {
    **dict.fromkeys(("c", "ctx", "ctx_size", "n_ctx", "num_ctx"), "context"),
    **dict.fromkeys(("b", "batch_size", "n_batch"), "batch_tokens"),
    **dict.fromkeys(("ub", "ubatch_size", "n_ubatch", "num_batch"), "ubatch"),
    **dict.fromkeys(("np", "n_parallel", "num_parallel"), "parallel"),
    **dict.fromkeys(("ngl", "n_gpu_layers", "num_gpu"), "gpu_layers"),
    **dict.fromkeys(("ncmoe", "n_cpu_moe", "cmoe"), "cpu_moe"),
    **dict.fromkeys(("ctk", "cache_type_k", "type_k"), "key_type"),
    **dict.fromkeys(("ctv", "cache_type_v", "type_v"), "value_type"),
    **dict.fromkeys(("nkvo", "no_kv_offload"), "kv_offload (kv_offload=off)"),
    **dict.fromkeys(("no_mmproj_offload",), "mmproj_offload (mmproj_offload=off)"),
    **dict.fromkeys(("fa", "flash_attn"), "flash_attention"),
    "kvu": "kv_unified",
    **dict.fromkeys(("cache", "kv_cache", "cache_class"), "cache_implementation"),
    "max_cache_length": "max_cache_len",
    "ts": "tensor_split",
    "sm": "split_mode",
    "mg": "main_gpu",
    "ot": "override_tensor",
    "embeddings": "embedding",
    "lora_scaled": "lora",
    **dict.fromkeys(("control_net", "controlnets"), "controlnet"),
    **dict.fromkeys(("ipadapter", "ip_adapters", "ip_adapter_image"), "ip_adapter"),
    **dict.fromkeys(("md", "model_draft"), "draft"),
    "rpc": "a card: --card rtx-4090+rpc:rtx-3090, with the card that the other machine serves",
}


def refuse_unmodelled(key: str, unmodelled: Mapping[str, str]) -> None:
    """Raise UsageError for what people add to a model and nobody plans."""
    what = unmodelled.get(key.lower().replace("-", "_"))
    if what is not None:
        hint = "leave it out; what it takes comes on top, and --margin keeps room for it"
        raise _unmodelled(key, what, hint)


def _unmodelled(word: str, what: str, hint: str) -> UsageError:
    return UsageError(
        f"{word!r} is known but not modelled: vramplan does not plan {what}", hint=hint
    )
