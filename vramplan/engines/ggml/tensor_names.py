"""The tensors that llama.cpp knows, and what it does with a file that has others: it refuses it.

``done_getting_tensors: wrong number of tensors`` ends the loading of a file with even one tensor
that its family does not ask for, such as a vision encoder's (``v.*``, ``mm.*``) in a language
model's. Source: the names in llama.cpp b11549's library, and gguf-py/gguf/constants.py; which of
them a family reads stands in `family_tensors`.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from vramplan.errors import SourceError
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.sources.gguf_header import GgufFile

_BLOCK = re.compile(r"(?:enc\.|dec\.)?blk\.[0-9]{1,4}\.")
_END = re.compile(r"\.(?:weight|bias|scales?|input_scale)$")
_NUMBER = re.compile(r"\.[0-9]{1,5}(?=\.|$)")

#: in a layer; %d is a number
_LAYER_NAMES = """
    altup_correct_coef altup_correct_scale altup_predict_coef altup_router
    altup_router_norm attn_compressor_ape attn_compressor_gate attn_compressor_kv
    attn_compressor_norm attn_conv_base attn_conv_proj attn_gate attn_k attn_k_b
    attn_k_norm attn_kv attn_kv_a_mqa attn_kv_a_norm attn_kv_b attn_norm attn_norm_2
    attn_o attn_output attn_output_a attn_output_b attn_output_norm attn_q attn_q_a
    attn_q_a_norm attn_q_b attn_q_norm attn_qkv attn_rel_b attn_res_score attn_rot_embd
    attn_sinks attn_sub_norm attn_v attn_v_b attn_v_exps attn_v_gate channel_mix_key
    channel_mix_lerp_k channel_mix_lerp_r channel_mix_receptance channel_mix_value
    cross_attn_k cross_attn_norm cross_attn_norm_kv cross_attn_o cross_attn_q
    cross_attn_rel_b cross_attn_v exp_probs_b exp_probs_b_vl ffn ffn.act ffn.act.scales
    ffn_conv_base ffn_conv_proj ffn_down ffn_down.%d ffn_down_chexps ffn_down_exps
    ffn_down_shexp ffn_gate ffn_gate.%d ffn_gate_chexps ffn_gate_exps ffn_gate_inp
    ffn_gate_inp_shexp ffn_gate_shexp ffn_gate_tid2eid ffn_gate_up_exps ffn_latent_down
    ffn_latent_up ffn_norm ffn_norm_exps ffn_res_score ffn_routed_down ffn_routed_norm
    ffn_routed_up ffn_sub_norm ffn_up ffn_up.%d ffn_up_chexps ffn_up_exps ffn_up_shexp
    hc_attn_base hc_attn_down hc_attn_fn hc_attn_inject hc_attn_norm hc_attn_scale
    hc_attn_up hc_ffn_base hc_ffn_down hc_ffn_fn hc_ffn_inject hc_ffn_norm hc_ffn_scale
    hc_ffn_up indexer.attn_k indexer.attn_q_b indexer.k_norm indexer.k_proj indexer.proj
    indexer.q_norm indexer.q_proj indexer_compressor_ape indexer_compressor_gate
    indexer_compressor_kv indexer_compressor_norm inp_gate laurel_l laurel_post_norm
    laurel_r layer_output_norm layer_output_scale nextn.eh_proj nextn.embed_tokens
    nextn.enorm nextn.hc_head_down nextn.hc_head_norm nextn.hc_head_up nextn.hnorm
    nextn.shared_head_head nextn.shared_head_norm ple_conv1d ple_key ple_norm_conv
    ple_norm_key ple_norm_query ple_value post_attention_norm post_ffw_norm
    post_ffw_norm_1 post_ffw_norm_2 post_norm pre_ffw_norm_2 proj shortconv.conv
    shortconv.in_proj shortconv.out_proj ssm_a ssm_alpha ssm_b_norm ssm_ba ssm_beta
    ssm_c_norm ssm_conv1d ssm_conv1d_k ssm_conv1d_q ssm_conv1d_v ssm_d ssm_dt ssm_dt_norm
    ssm_f_a ssm_f_b ssm_g ssm_g_a ssm_g_b ssm_in ssm_norm ssm_out ssm_x time_mix_a0
    time_mix_a1 time_mix_a2 time_mix_decay time_mix_decay_w1 time_mix_decay_w2
    time_mix_first time_mix_g1 time_mix_g2 time_mix_gate time_mix_k_a time_mix_k_k
    time_mix_key time_mix_lerp_fused time_mix_lerp_g time_mix_lerp_k time_mix_lerp_r
    time_mix_lerp_v time_mix_lerp_w time_mix_lerp_x time_mix_ln time_mix_output
    time_mix_r_k time_mix_receptance time_mix_v0 time_mix_v1 time_mix_v2 time_mix_value
    time_mix_w0 time_mix_w1 time_mix_w2 vis_attn_output vis_attn_qkv vis_down vis_gate
    vis_up
"""
#: outside
_OTHER_NAMES = """
    altup_proj altup_unembd_proj cls cls.norm cls.output conv1d convnext.%d.dw
    convnext.%d.gamma convnext.%d.norm convnext.%d.pw1 convnext.%d.pw2 dec.output_norm
    dense_2 dense_3 enc.output_norm hrm.z_l_init output output_norm output_res_score
    per_layer_model_proj
    per_layer_proj_norm per_layer_token_embd position_embd posnet.%d.attn_k
    posnet.%d.attn_norm posnet.%d.attn_output posnet.%d.attn_q posnet.%d.attn_v
    posnet.%d.conv1 posnet.%d.conv2 posnet.%d.norm posnet.%d.norm1 posnet.%d.norm2
    rope_factors_long rope_factors_short rope_freqs token_embd token_embd_norm token_types
"""


#: what llama.cpp calls otherwise, or has no graph of: files that Ollama's own converter wrote
OLLAMAS = frozenset({
    "deepseekocr", "glm4moelite", "glmocr", "gptoss", "mllama", "nemotron_h_omni", "olmo3",
    "qwen25vl",
})  # fmt: skip


IN_LAYERS, OUTSIDE = frozenset(_LAYER_NAMES.split()), frozenset(_OTHER_NAMES.split())


def refuse_unknown(file: GgufFile) -> None:
    """Raise SourceError for a file with tensors that llama.cpp does not read in its family.

    So for a family that Ollama's converter alone calls so. Of others that are not known the engine
    may have names that are not here.
    """
    from vramplan.engines.ggml.family_tensors import READ

    family = file.architecture
    if family in OLLAMAS:
        message = f"{file.path}: llama.cpp refuses it: unknown model architecture: '{family}'"
        whose = "Ollama's own converter wrote it: ollama:NAME asks what Ollama makes of it"
        raise SourceError(message, hint=whose)
    if family not in READ:
        return
    in_layers, outside = (frozenset(names.split()) for names in READ[family])
    strange = [one.name for one in file.tensors if not _is_in(in_layers, outside, one.name)]
    if not strange:
        return
    wanted, there = len(file.tensors), len(file.tensors) - len(strange)
    named = ", ".join(one[:60] for one in strange[:3]) + (", ..." if len(strange) > 3 else "")
    is_known = all(_is_in(IN_LAYERS, OUTSIDE, one) for one in strange)
    why = f"it reads no {named} in {family}" if is_known else f"it does not know {named}"
    message = (
        f"{file.path}: llama.cpp refuses it: wrong number of tensors; expected {wanted}, got "
        f"{there}: {why}"
    )
    hint = None
    if any(one.startswith(("v.", "mm.", "a.")) for one in strange):
        hint = "an encoder's tensors belong into a file of their own, the projector's (mmproj)"
    raise SourceError(message, hint=hint)


def stem_of(name: str) -> tuple[bool, str]:
    """Return whether a tensor is in a layer, and its name without number and ending."""
    block = _BLOCK.match(name)
    rest = _NUMBER.sub(".%d", _END.sub("", name[block.end() :] if block else name))
    return block is not None, rest


def _is_in(in_layers: Collection[str], outside: Collection[str], name: str) -> bool:
    is_in_layer, stem = stem_of(name)
    return stem in (in_layers if is_in_layer else outside)
