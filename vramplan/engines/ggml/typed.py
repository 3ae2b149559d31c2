"""How a setting is said to the program that runs a model: a flag, a variable, a field, a switch.

Sources: llama.cpp, common/arg.cpp; Ollama, envconfig/config.go and docs/api.md (options of a
request); lmstudio.ai/docs/cli/load, whose command takes layers, context and requests, and LM
Studio's load settings for the rest (lmstudio-ai/lmstudio-bug-tracker#2024, #897).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vramplan.engines.ggml.pipeline import GgmlPipeline

LLAMA_CPP, OLLAMA, LM_STUDIO = "llama.cpp", "Ollama", "LM Studio"

#: what is meant -> the line of each program; {} stands for the value
_LINES: Mapping[str, Mapping[str, str]] = {
    "all layers": {
        LLAMA_CPP: "-ngl 999",
        OLLAMA: '"num_gpu": 999 in the request\'s options',
        LM_STUDIO: "lms load --gpu max",
    },
    "layers as they fit": {
        LLAMA_CPP: "no -ngl",
        OLLAMA: "no num_gpu in the request's options",
        LM_STUDIO: "lms load without --gpu",
    },
    "context": {
        LLAMA_CPP: "-c {}",
        OLLAMA: "OLLAMA_CONTEXT_LENGTH={}",
        LM_STUDIO: "lms load --context-length {}",
    },
    "ubatch": {
        LLAMA_CPP: "-ub {}",
        OLLAMA: '"num_batch": {} in the request\'s options',
        LM_STUDIO: "Evaluation Batch Size: {} in the load settings",
    },
    "cache type": {
        LLAMA_CPP: "-ctk {0} -ctv {0}",
        OLLAMA: "OLLAMA_KV_CACHE_TYPE={}",
        LM_STUDIO: "K and V Cache Quantization Type: {} in the load settings",
    },
    "flash attention": {
        LLAMA_CPP: "-fa auto",
        OLLAMA: "OLLAMA_FLASH_ATTENTION=1",
        LM_STUDIO: "Flash Attention: on in the load settings",
    },
    "one request": {
        LLAMA_CPP: "-np 1",
        OLLAMA: "OLLAMA_NUM_PARALLEL=1",
        LM_STUDIO: "lms load --parallel 1",
    },
    "cache on the host": {
        LLAMA_CPP: "--no-kv-offload",
        OLLAMA: "LLAMA_ARG_KV_OFFLOAD=0",
        LM_STUDIO: "Offload KV Cache to GPU Memory: off in the load settings",
    },
    # LM Studio has no setting for these two
    "projector on the CPU": {
        LLAMA_CPP: "--no-mmproj-offload",
        OLLAMA: "LLAMA_ARG_MMPROJ_OFFLOAD=0",
    },
    "nothing guessed ahead": {
        LLAMA_CPP: "no -md",
        OLLAMA: '"draft_num_predict": 0 in the request\'s options',
    },
    "windows alone": {
        LLAMA_CPP: "no --swa-full",
        OLLAMA: "no LLAMA_ARG_SWA_FULL",
        LM_STUDIO: "no full SWA cache in the load settings",
    },
    # llama-server reads LLAMA_ARG_*, and Ollama starts it with its own environment
    "experts": {
        LLAMA_CPP: "--n-cpu-moe {}",
        OLLAMA: "LLAMA_ARG_N_CPU_MOE={}",
        LM_STUDIO: "Force Model Expert Weights onto CPU: {} layers in the load settings",
    },
}


def program_of(pipeline: GgmlPipeline) -> str:
    """Return which program runs a pipeline: LM Studio what lies in its folder of models."""
    if pipeline.is_ollama:
        return OLLAMA
    if pipeline.is_lm_studio:
        return LM_STUDIO
    from vramplan.sources.model_folder import lm_studio_folder

    folder = lm_studio_folder()
    is_kept = folder is not None and Path(pipeline.path).is_relative_to(folder)
    return LM_STUDIO if is_kept else LLAMA_CPP


def is_said(what: str, program: str) -> bool:
    """Return whether a program can be told something."""
    return program in _LINES[what]


def line(what: str, program: str, value: object = "") -> str:
    """Return what is typed, or set, in a program."""
    return _LINES[what][program].format(value)
