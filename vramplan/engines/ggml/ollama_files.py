"""Model files of Ollama's own converter, as its llama-server shows them to llama.cpp.

Before 0.30 Ollama had an engine of its own, and its library holds files made for it: other names
of architectures, tensors and keys, and a model's encoders in the file of the model. Since then a
layer in the loader shows such a file as llama.cpp's converter would have written it, and shows it
twice: as the model, and as the projector. A file that needs none of it stays as it is.
Source: ollama/ollama, llama/compat/llama-ollama-compat.cpp and llm/llama_server.go
(compatClipArches), at llama.cpp b10488.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from vramplan.engines.ggml.ollama_encoders import (
    ENCODERS,
    Draft,
    Keys,
    Tensors,
    projector_in,
    renamed,
)
from vramplan.quick_dataclass import dataclass, replace
from vramplan.sources.gguf_header import GgufFile, GgufTensor

#: what Ollama counts as the projector of a file that holds one (mmprojMemoryRequirement)
_ENCODERS = ("v.", "mm.", "a.")
_WORDS = "tokenizer.ggml.tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class Translated:
    """A file of Ollama's converter as llama.cpp gets it.

    `written_as` is the architecture that the file names; `encoder_bytes` are those that its
    encoders' tensors take in the file, by which Ollama makes room. They differ from what is loaded
    where a tensor is widened.
    """

    model: GgufFile
    projector: GgufFile | None
    written_as: str
    encoder_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """What becomes of the model of one architecture: hidden, renamed, and then `mended`."""

    name: str = ""
    hidden: tuple[str, ...] = ()
    renames: tuple[tuple[str, str], ...] = ()
    mend: tuple[Callable[[Draft], None], ...] = ()


def translated(file: GgufFile) -> Translated | None:
    """Return what llama.cpp gets of a file of Ollama's converter; None where it gets the file."""
    written_as = file.architecture
    rule = _RULES.get(written_as)
    if rule is None:
        return None
    if written_as == "gemma3" and any(one.name == "dense.0.weight" for one in file.tensors):
        rule = _EMBEDDING_GEMMA
    elif rule.name and rule.name == _MAMBA and not any(map(file.number, _EXPERT_COUNTS)):
        rule = replace(rule, name=_MAMBA.removesuffix("_moe"))
    model = _model(file, rule)
    inside = [one for one in file.tensors if one.name.startswith(_ENCODERS)]
    projector = None
    if written_as in ENCODERS and any(one.name.startswith("v.") for one in inside):
        projector = projector_in(file)
    if projector is None and model == file:
        return None
    if file.identity:  # what is made of one view is not to be taken for the other's
        model = replace(model, identity=f"{file.identity} as llama.cpp's {model.architecture}")
    return Translated(
        model=model,
        projector=projector,
        written_as=written_as,
        encoder_bytes=sum(one.size_bytes for one in inside) if projector is not None else 0,
    )


def _model(file: GgufFile, rule: _Rule) -> GgufFile:
    name = rule.name or file.architecture
    keys: Keys = dict(file.metadata)
    if rule.name:
        keys["general.architecture"] = name
        before = f"{file.architecture}."
        for key, value in file.metadata.items():
            if key.startswith(before):
                keys[f"{name}.{key.removeprefix(before)}"] = value
    tensors: Tensors = {
        (told := renamed(one.name, rule.renames)): replace(one, name=told) for one in file.tensors
    }
    draft = Draft(file=file, name=name, keys=keys, tensors=tensors)
    for mend in rule.mend:
        mend(draft)
    if rule.hidden:
        tensors = {key: one for key, one in tensors.items() if not key.startswith(rule.hidden)}
    lengths = dict(file.lengths)
    table = tensors.get("token_embd.weight")
    if table is not None and len(table.shape) > 1 and lengths.get(_WORDS, 0) > table.shape[1]:
        lengths[_WORDS] = table.shape[1]  # words of images that have no row
    return replace(file, metadata=keys, lengths=lengths, tensors=tuple(tensors.values()))


def _rows(tensors: Mapping[str, GgufTensor], name: str, side: int) -> int:
    """Return one side of a tensor; 0 where there is no such tensor, or no such side."""
    found = tensors.get(name)
    return found.shape[side] if found is not None and len(found.shape) > side else 0


def _experts_of_gpt_oss(draft: Draft) -> None:
    """Tell an expert's width by its matrix, and name the sinks as a weight."""
    for key in [key for key in draft.tensors if key.endswith(".attn_sinks")]:
        draft.rename(key, f"{key}.weight")
    if rows := _rows(draft.tensors, "blk.0.ffn_gate_exps.weight", 1):
        draft.keys.setdefault(f"{draft.name}.expert_feed_forward_length", rows)


def _norm_of_lfm2(draft: Draft) -> None:
    """Exchange a norm's name, and take the feed-forward's width from its matrix."""
    if "token_embd_norm.weight" not in draft.tensors and "output_norm.weight" in draft.tensors:
        draft.rename("output_norm.weight", "token_embd_norm.weight")
        if rows := _rows(draft.tensors, "blk.0.ffn_gate.weight", 1):
            draft.keys[f"{draft.name}.feed_forward_length"] = rows


def _words_of_gemma3n(draft: Draft) -> None:
    """Cut the table of embeddings to the words that every layer has embeddings of, too."""
    table = draft.tensors.get("token_embd.weight")
    rows = _rows(draft.tensors, "per_layer_token_embd.weight", 1)
    if table is not None and len(table.shape) > 1 and 0 < rows < table.shape[1]:
        draft.tensors["token_embd.weight"] = replace(table, shape=(table.shape[0], rows))


def _experts_of_gemma4(draft: Draft) -> None:
    """Join the experts' gates and ups, where both are alike and nothing scales them.

    llama.cpp's own converter leaves them apart too: of such a file they stay so.
    """
    is_ollamas = draft.file.text("tokenizer.ggml.model") == "llama"
    if not is_ollamas and not any(key.startswith(_IN_GEMMA4) for key in draft.tensors):
        return
    for gate in [key for key in draft.tensors if key.endswith(".ffn_gate_exps.weight")]:
        at = gate.removesuffix("ffn_gate_exps.weight")
        up, both = f"{at}ffn_up_exps.weight", f"{at}ffn_gate_up_exps.weight"
        scaled = (f"{at}ffn_{part}_exps.{scale}" for part in ("gate", "up") for scale in _SCALES)
        one, other = draft.tensors[gate], draft.tensors.get(up)
        if other is None or both in draft.tensors or any(key in draft.tensors for key in scaled):
            continue
        if (one.type, one.shape) == (other.type, other.shape) and len(one.shape) == _STACKED:
            wide, rows, count = one.shape
            del draft.tensors[gate], draft.tensors[up]
            draft.tensors[both] = replace(one, name=both, shape=(wide, 2 * rows, count))
    for key in [key for key in draft.tensors if key.endswith(".ffn_gate_inp.per_expert_scale")]:
        told = key.replace("ffn_gate_inp.per_expert_scale", "ffn_down_exps.scale")
        draft.rename(key, told)


_IN_GEMMA4 = ("a.", "v.", "mm.", "model.vision_tower.")
_SCALES = ("scale", "input_scale")
_STACKED = 3


def _states_of_qwen(draft: Draft) -> None:
    """Name the time steps' biases as biases, and give all layers the most KV heads of any."""
    for key in [key for key in draft.tensors if key.endswith(".ssm_dt")]:
        draft.rename(key, f"{key}.bias")
    heads = f"{draft.name}.attention.head_count_kv"
    told = draft.keys.get(heads)
    if isinstance(told, tuple):
        most = max((one for one in told if isinstance(one, int)), default=0)
        if most:
            draft.keys[heads] = most


def _guesses_of_qwen(draft: Draft) -> None:
    """Put the layers that guess ahead behind the others, their experts stacked."""
    numbers = {int(one[1]) for key in draft.tensors if (one := _GUESSING.match(key))}
    if not any(key.startswith("mtp.") for key in draft.tensors) or any(
        ".nextn." in k for k in draft.tensors
    ):
        return
    guessing = max(numbers, default=0) + 1
    base = max((int(one[1]) for key in draft.tensors if (one := _BLOCK.match(key))), default=-1) + 1
    if not base or guessing > _MOST_GUESSING:
        return
    draft.keys[f"{draft.name}.nextn_predict_layers"] = guessing
    draft.keys[f"{draft.name}.block_count"] = base + guessing
    experts: dict[str, list[GgufTensor]] = {}
    for key in [key for key in draft.tensors if key.startswith("mtp.")]:
        told = _guessing_name(key, base, guessing)
        if told is None:
            continue
        tensor = draft.tensors.pop(key)
        place, part = told
        if part.startswith(_EXPERTS):
            stacked = _STACKS.get(part.rpartition("_proj")[0].rpartition(".")[2])
            if stacked is not None:
                experts.setdefault(f"blk.{place}.{stacked}.weight", []).append(tensor)
        elif f"blk.{place}.{part}" not in draft.tensors:
            kind = (
                "f32" if f".{part}".endswith(_SHIFTED) and "ssm_norm" not in part else tensor.type
            )
            told_name = f"blk.{place}.{part}"
            draft.tensors[told_name] = replace(tensor, name=told_name, type=kind)
    for key, found in experts.items():
        first = found[0]
        if all((one.shape, one.type) == (first.shape, first.type) for one in found):
            draft.tensors[key] = replace(first, name=key, shape=(*first.shape[:2], len(found)))


def _guessing_name(key: str, base: int, guessing: int) -> tuple[int, str] | None:
    """Return the layer and the part that a tensor of those that guess becomes; None if neither."""
    if found := _GUESSING.match(key):
        return base + int(found[1]), key[found.end() :]
    part = _SHARED.get(key)
    return (base, part) if part is not None and guessing == 1 else None


_GUESSING = re.compile(r"mtp\.layers\.([0-9]{1,4})\.")
_BLOCK = re.compile(r"blk\.([0-9]{1,4})\.")
_MOST_GUESSING = 16
_EXPERTS = "mlp.experts."
_STACKS = {"gate": "ffn_gate_exps", "up": "ffn_up_exps", "down": "ffn_down_exps"}
#: norms to which one is added as they are loaded, in f32
_SHIFTED = ("_norm.weight", ".nextn.enorm.weight", ".nextn.hnorm.weight")
#: what there is once beside the layers that guess
_SHARED = {
    "mtp.fc.weight": "nextn.eh_proj.weight",
    "mtp.pre_fc_norm_embedding.weight": "nextn.enorm.weight",
    "mtp.pre_fc_norm_hidden.weight": "nextn.hnorm.weight",
    "mtp.embed_tokens.weight": "nextn.embed_tokens.weight",
    "mtp.shared_head.head.weight": "nextn.shared_head_head.weight",
    "mtp.shared_head.norm.weight": "nextn.shared_head_norm.weight",
    "mtp.norm.weight": "nextn.shared_head_norm.weight",
}


def _latent_heads(draft: Draft) -> None:
    """Say the heads of GLM 4.7 Flash as DeepSeek's latent attention has them."""
    rank = draft.keys.get(f"{draft.name}.attention.kv_lora_rank")
    turned = draft.keys.get(f"{draft.name}.rope.dimension_count")
    head = draft.keys.get(f"{draft.name}.attention.key_length")
    draft.keys[f"{draft.name}.attention.head_count_kv"] = 1
    if isinstance(rank, int) and isinstance(turned, int):
        draft.keys[f"{draft.name}.attention.key_length"] = rank + turned
        draft.keys[f"{draft.name}.attention.value_length"] = rank
    if isinstance(head, int):
        draft.keys[f"{draft.name}.attention.key_length_mla"] = head
        draft.keys[f"{draft.name}.attention.value_length_mla"] = head


def _deepstack_of_qwen3vl(draft: Draft) -> None:
    told = draft.keys.get(f"{draft.name}.vision.deepstack_visual_indexes")
    count = len(told) if isinstance(told, tuple) else 0
    draft.keys.setdefault(f"{draft.name}.n_deepstack_layers", count)


def _experts_of_deepseek_ocr(draft: Draft) -> None:
    if inner := _rows(draft.tensors, "blk.1.ffn_down_exps.weight", 0):
        draft.keys.setdefault(f"{draft.name}.expert_feed_forward_length", inner)
        shared = _rows(draft.tensors, "blk.1.ffn_down_shexp.weight", 0)
        draft.keys.setdefault(f"{draft.name}.expert_shared_count", shared // inner)


def _embeddings_of_gemma(draft: Draft) -> None:
    """Name the last norm as llama.cpp does, and leave the pattern of windows to it."""
    draft.keys.pop(f"{draft.name}.attention.sliding_window_pattern", None)
    if "norm.weight" in draft.tensors:
        norm = draft.tensors.pop("norm.weight")
        draft.tensors.setdefault("output_norm.weight", replace(norm, name="output_norm.weight"))


def _gates_of_glm(draft: Draft) -> None:
    """Join every gate with the matrix beside it."""
    for up in [key for key in draft.tensors if key.endswith(".ffn_up.weight")]:
        gate = up.replace("ffn_up", "ffn_gate")
        one = draft.tensors[up]
        if gate in draft.tensors and len(one.shape) > 1:
            del draft.tensors[gate]
            draft.tensors[up] = replace(one, shape=(one.shape[0], 2 * one.shape[1]))


def _latents_of_nemotron(draft: Draft) -> None:
    found = [key for key in draft.tensors if key.endswith(".ffn_latent_down.weight")]
    if found:
        draft.keys.setdefault(f"{draft.name}.moe_latent_size", _rows(draft.tensors, found[0], 1))


_MAMBA = "nemotron_h_moe"
_EXPERT_COUNTS = ("nemotron_h_omni.expert_count", "nemotron_h_omni.expert_used_count")
_SEEING = ("v.", "mm.")
_LATENTS = ((".ffn_latent_in", ".ffn_latent_down"), (".ffn_latent_out", ".ffn_latent_up"))
_RULES: Mapping[str, _Rule] = {
    "gemma3": _Rule(hidden=_SEEING),
    "gemma3n": _Rule(mend=(_words_of_gemma3n,)),
    "gemma4": _Rule(hidden=_IN_GEMMA4, mend=(_experts_of_gemma4,)),
    "qwen35": _Rule(hidden=(*_SEEING, "mtp."), mend=(_states_of_qwen, _guesses_of_qwen)),
    "qwen35moe": _Rule(hidden=(*_SEEING, "mtp."), mend=(_states_of_qwen, _guesses_of_qwen)),
    "qwen3next": _Rule(mend=(_states_of_qwen,)),
    "gptoss": _Rule(
        name="gpt-oss",
        renames=(
            (".attn_out.", ".attn_output."),
            (".ffn_norm.", ".post_attention_norm."),
        ),
        mend=(_experts_of_gpt_oss,),
    ),
    "lfm2": _Rule(mend=(_norm_of_lfm2,)),
    "olmo3": _Rule(name="olmo2"),
    "mistral3": _Rule(hidden=_SEEING),
    "qwen25vl": _Rule(name="qwen2vl", hidden=_SEEING),
    "qwen3vl": _Rule(hidden=_SEEING, mend=(_deepstack_of_qwen3vl,)),
    "qwen3vlmoe": _Rule(hidden=_SEEING, mend=(_deepstack_of_qwen3vl,)),
    "glm4moelite": _Rule(name="deepseek2", mend=(_latent_heads,)),
    "deepseekocr": _Rule(
        name="deepseek2-ocr", hidden=("s.", *_SEEING), mend=(_experts_of_deepseek_ocr,)
    ),
    "glmocr": _Rule(
        name="glm4",
        hidden=_SEEING,
        renames=(
            (".attn_out.", ".attn_output."),
            (".post_attn_norm.", ".post_attention_norm."),
            (".post_ffn_norm.", ".post_ffw_norm."),
        ),
        mend=(_gates_of_glm,),
    ),
    "laguna": _Rule(renames=((".attn_g.weight", ".attn_gate.weight"),)),
    "llama4": _Rule(hidden=_SEEING),
    "nemotron_h_moe": _Rule(hidden=("mtp.",), renames=_LATENTS, mend=(_latents_of_nemotron,)),
    "nemotron_h_omni": _Rule(
        name=_MAMBA,
        hidden=("a.", *_SEEING, "mtp."),
        renames=_LATENTS,
        mend=(_latents_of_nemotron,),
    ),
}
_EMBEDDING_GEMMA = _Rule(
    name="gemma-embedding",
    renames=(("dense.0.weight", "dense_2.weight"), ("dense.1.weight", "dense_3.weight")),
    mend=(_embeddings_of_gemma,),
)
